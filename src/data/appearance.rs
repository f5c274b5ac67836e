//! What the pictures of a data set have in common: light things on black or dark ones on white, and how much of the frame
//! they fill. A network that has learned from such pictures wants others made alike ([`super::framing`]).

use super::background::Background;
use super::framing::{Polarity, box_share, sketch};
use super::picture::{self, Picture};
use super::{DataError, Source};
use rayon::prelude::*;
use std::path::Path;

/// Pictures looked at.
const SAMPLE: usize = 64;
/// Fewest pictures, blank ones left out, that say anything.
const LEAST: usize = 4;
/// Share of the pictures that have to have the same background.
const SAME_BACKGROUND: f64 = 0.95;
/// Share of the pictures whose things have to fill about the same share of the frame, and how far that may be off.
const SAME_FILL: f64 = 0.8;
const FILL_TOLERANCE: f64 = 0.1;
/// From this share on a thing fills the frame.
const WHOLE: f64 = 0.95;

/// How pictures look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Appearance {
    /// The thing against its background.
    pub polarity: Polarity,
    /// Share of the frame that the thing's longer side takes, in (0, 1].
    pub fill: f32,
}

impl Appearance {
    /// Pictures of whatever kind: they are taken as they are.
    pub const ANY: Self = Appearance { polarity: Polarity::Any, fill: 1.0 };

    /// How the images of a split look, judged by a few of them spread over it. Only grey ones are looked at.
    pub fn of(source: &dyn Source) -> Result<Self, DataError> {
        if let Some(known) = source.appearance() {
            return Ok(known);
        }
        let [channels, height, width] = source.shape();
        if channels != 1 || height == 0 || width == 0 {
            return Ok(Self::ANY);
        }
        let mut looks = Vec::new();
        for index in spread(source.len()) {
            let mut pixels = vec![0; height * width];
            if source.try_read(index, &mut pixels)?.is_some() {
                looks.push(look(&Picture { width: width as u32, height: height as u32, channels: 1, pixels }));
            }
        }
        Ok(common(&looks))
    }

    /// The same for pictures in files; those that cannot be read are left out.
    pub(super) fn of_files(files: &[impl AsRef<Path> + Sync]) -> Self {
        let of = |index: usize| picture::open(files[index].as_ref()).and_then(|picture| picture.with_channels(1)).ok();
        let looks: Vec<Look> = spread(files.len()).into_par_iter().filter_map(of).map(|picture| look(&picture)).collect();
        common(&looks)
    }
}

/// Up to [`SAMPLE`] numbers below `len`, evenly spread.
fn spread(len: usize) -> Vec<usize> {
    let count = len.min(SAMPLE);
    (0..count).map(|n| n * len / count).collect()
}

/// What one picture looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Look {
    /// One colour throughout.
    Blank,
    /// A thing on a background that is nearly black or white, which is the same in all corners.
    Thing { is_light_behind: bool, fill: f64 },
    /// Anything else.
    Other,
}

fn look(picture: &Picture) -> Look {
    let sketch = sketch(picture);
    let background = Background::of(&sketch);
    match box_share(&sketch, &background) {
        None => Look::Blank,
        Some(fill) if background.is_plain() => Look::Thing { is_light_behind: background.is_light(), fill },
        Some(_) => Look::Other,
    }
}

fn common(looks: &[Look]) -> Appearance {
    let seen = looks.iter().filter(|look| **look != Look::Blank).count();
    let fills = |wanted: bool| -> Vec<f64> {
        let fill = |look: &Look| match look {
            Look::Thing { is_light_behind, fill } if *is_light_behind == wanted => Some(*fill),
            _ => None,
        };
        looks.iter().filter_map(fill).collect()
    };
    for (is_light_behind, polarity) in [(false, Polarity::LightOnDark), (true, Polarity::DarkOnLight)] {
        let mut fills = fills(is_light_behind);
        if seen < LEAST || (fills.len() as f64) < SAME_BACKGROUND * seen as f64 {
            continue;
        }
        fills.sort_by(f64::total_cmp);
        let middle = fills[fills.len() / 2];
        let alike = fills.iter().filter(|fill| (**fill - middle).abs() <= FILL_TOLERANCE).count();
        if alike as f64 >= SAME_FILL * fills.len() as f64 {
            let fill = if middle >= WHOLE { 1.0 } else { (middle * 100.0).round() as f32 / 100.0 };
            return Appearance { polarity, fill };
        }
    }
    Appearance::ANY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, OpenOptions, open};

    /// Images of 28x28 with a square of `side` somewhere on a background.
    fn squares(background: u8, thing: u8, side: impl Fn(usize) -> usize) -> InMemory {
        let image = |n: usize| {
            let (side, left, top) = (side(n), 4 + n % 3, 4 + n % 4);
            (0..784).map(move |at| {
                let inside = (left..left + side).contains(&(at % 28)) && (top..top + side).contains(&(at / 28));
                if inside { thing } else { background }
            })
        };
        InMemory::new([1, 28, 28], 2, (0..40).flat_map(image).collect(), vec![0; 40]).unwrap()
    }

    #[test]
    fn the_pictures_decide_and_not_a_name() {
        let of = |source: &dyn Source| Appearance::of(source).unwrap();
        assert_eq!(of(&squares(0, 200, |_| 20)), Appearance { polarity: Polarity::LightOnDark, fill: 0.71 });
        assert_eq!(of(&squares(250, 20, |_| 14)), Appearance { polarity: Polarity::DarkOnLight, fill: 0.5 });
        // Things of every size, and backgrounds that are neither black nor white, are pictures like any other.
        assert_eq!(of(&squares(0, 200, |n| 3 + n % 22)), Appearance::ANY);
        assert_eq!(of(&squares(120, 200, |_| 20)), Appearance::ANY);
        assert_eq!(of(&squares(0, 0, |_| 20)), Appearance::ANY);
        assert_eq!(of(&InMemory::empty([1, 28, 28], 2)), Appearance::ANY);
        assert_eq!(of(&InMemory::new([3, 1, 1], 2, vec![0; 30], vec![0; 10]).unwrap()), Appearance::ANY);
    }

    #[test]
    fn fashion_mnist_is_light_on_dark_and_fills_the_frame() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-mnist-mini");
        let dataset = open(folder, &OpenOptions::default()).unwrap();
        let expected = Appearance { polarity: Polarity::LightOnDark, fill: 1.0 };
        assert_eq!(Appearance::of(dataset.train.as_ref()).unwrap(), expected);
        assert_eq!(Appearance::of(dataset.test.as_ref()).unwrap(), expected);
    }
}
