//! Network in Network (Lin, Chen, Yan 2013, arXiv 1312.4400) in four sizes.

use super::ModelOptions;
use crate::graph::{GraphError, Scope};
use crate::shape::Window;

/// An mlpconv block (section 3.1 of the paper): a convolution and two 1x1 convolutions, each followed by ReLU.
fn mlpconv(scope: &mut Scope<'_>, channels: [usize; 3], window: Window) -> Result<(), GraphError> {
    scope.block(|s| {
        s.conv2d(channels[0], window)?;
        s.relu()?;
        s.conv2d(channels[1], Window::square(1, 1, 0))?;
        s.relu()?;
        s.conv2d(channels[2], Window::square(1, 1, 0))?;
        s.relu()
    })
}

/// d2l.ai, section 8.3.
pub(super) fn nin(s: &mut Scope<'_>, o: &ModelOptions) -> Result<(), GraphError> {
    mlpconv(s, [96; 3], Window::square(11, 4, 0))?;
    s.max_pool2d(Window::square(3, 2, 0))?;
    mlpconv(s, [256; 3], Window::square(5, 1, 2))?;
    s.max_pool2d(Window::square(3, 2, 0))?;
    mlpconv(s, [384; 3], Window::square(3, 1, 1))?;
    s.max_pool2d(Window::square(3, 2, 0))?;
    s.dropout(o.dropout)?;
    mlpconv(s, [o.classes; 3], Window::square(3, 1, 1))?;
    s.global_avg_pool()?;
    s.flatten()
}

/// The paper's CIFAR network in the form its authors published for Caffe.
pub(super) fn nin_cifar(s: &mut Scope<'_>, o: &ModelOptions) -> Result<(), GraphError> {
    mlpconv(s, [192, 160, 96], Window::square(5, 1, 2))?;
    s.max_pool2d(Window::square(3, 2, 0).ceil())?;
    s.dropout(o.dropout)?;
    mlpconv(s, [192; 3], Window::square(5, 1, 2))?;
    s.avg_pool2d(Window::square(3, 2, 0).ceil())?;
    s.dropout(o.dropout)?;
    mlpconv(s, [192, 192, o.classes], Window::square(3, 1, 1))?;
    s.global_avg_pool()?;
    s.flatten()
}

/// The Caffe model zoo's `nin_imagenet`; Caffe's pools round up.
pub(super) fn nin_imagenet(s: &mut Scope<'_>, o: &ModelOptions) -> Result<(), GraphError> {
    mlpconv(s, [96; 3], Window::square(11, 4, 0))?;
    s.max_pool2d(Window::square(3, 2, 0).ceil())?;
    mlpconv(s, [256; 3], Window::square(5, 1, 2))?;
    s.max_pool2d(Window::square(3, 2, 0).ceil())?;
    mlpconv(s, [384; 3], Window::square(3, 1, 1))?;
    s.max_pool2d(Window::square(3, 2, 0).ceil())?;
    s.dropout(o.dropout)?;
    mlpconv(s, [1024, 1024, o.classes], Window::square(3, 1, 1))?;
    s.global_avg_pool()?;
    s.flatten()
}

/// Our own, for CPUs and demos: most multiply-adds are spent at 14x14 and 7x7, where channels are cheap, and the
/// second block narrows to 32 channels before the last 3x3 convolution widens again.
pub(super) fn nin_small(s: &mut Scope<'_>, o: &ModelOptions) -> Result<(), GraphError> {
    mlpconv(s, [16; 3], Window::square(5, 1, 2))?;
    s.max_pool2d(Window::square(3, 2, 0).ceil())?;
    mlpconv(s, [64, 64, 32], Window::square(3, 1, 1))?;
    s.max_pool2d(Window::square(3, 2, 0).ceil())?;
    s.dropout(o.dropout)?;
    mlpconv(s, [128, 128, o.classes], Window::square(3, 1, 1))?;
    s.global_avg_pool()?;
    s.flatten()
}
