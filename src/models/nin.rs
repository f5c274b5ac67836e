//! Network in Network (Lin, Chen, Yan 2013, arXiv 1312.4400) in four sizes.

use super::ModelOptions;
use crate::graph::{GraphError, Scope};
use crate::shape::Window;

/// An mlpconv block (section 3.1 of the paper): a convolution and, for each further channel count, a 1x1 convolution, each
/// followed by ReLU. The paper and all published forms have two.
fn mlpconv<const N: usize>(scope: &mut Scope<'_>, channels: [usize; N], window: Window) -> Result<(), GraphError> {
    scope.block(|s| {
        for (index, channels) in channels.into_iter().enumerate() {
            s.conv2d(channels, if index == 0 { window } else { Window::square(1, 1, 0) })?;
            s.relu()?;
        }
        Ok(())
    })
}

/// d2l.ai, section 8.3.
pub(super) fn nin(s: &mut Scope<'_>, o: &ModelOptions) -> Result<(), GraphError> {
    nin_of_blocks::<3>(s, o)
}

/// d2l.ai's `nin` with one 1x1 convolution a block: the ablation that its exercises ask for.
pub(super) fn nin_one_1x1(s: &mut Scope<'_>, o: &ModelOptions) -> Result<(), GraphError> {
    nin_of_blocks::<2>(s, o)
}

/// d2l.ai's `nin` with `N` convolutions a block.
fn nin_of_blocks<const N: usize>(s: &mut Scope<'_>, o: &ModelOptions) -> Result<(), GraphError> {
    mlpconv(s, [96; N], Window::square(11, 4, 0))?;
    s.max_pool2d(Window::square(3, 2, 0))?;
    mlpconv(s, [256; N], Window::square(5, 1, 2))?;
    s.max_pool2d(Window::square(3, 2, 0))?;
    mlpconv(s, [384; N], Window::square(3, 1, 1))?;
    s.max_pool2d(Window::square(3, 2, 0))?;
    s.dropout(o.dropout)?;
    mlpconv(s, [o.classes; N], Window::square(3, 1, 1))?;
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
