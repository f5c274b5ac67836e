//! Half-precision numbers, as files and half-precision tensors hold them.

/// The value of an IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match exponent {
        // Zero and subnormals count in units of 2^-24.
        0 => sign * fraction as f32 * f32::from_bits((127 - 24) << 23),
        // Infinity and NaN keep their fraction.
        31 => f32::from_bits(u32::from(bits & 0x8000) << 16 | 0xff << 23 | fraction << 13),
        _ => sign * f32::from_bits((exponent + 127 - 15) << 23 | fraction << 13),
    }
}

/// The IEEE 754 binary16 nearest to `value`, ties to even. What is too large becomes infinity, and NaN stays NaN.
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    match magnitude {
        // NaN keeps the upper bits of its fraction, and one that is always set.
        0x7f80_0001.. => sign | 0x7e00 | (magnitude >> 13) as u16 & 0x1ff,
        // From half a unit above the largest finite value, 65504.
        0x477f_f000.. => sign | 0x7c00,
        // Normal numbers: a carry out of the fraction raises the exponent, as it should.
        0x3880_0000.. => sign | ((magnitude - (112 << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13) as u16,
        // Subnormals count in units of 2^-24: the product with 2^24 is exact.
        _ => sign | (f32::from_bits(magnitude) * f32::from_bits((127 + 24) << 23)).round_ties_even() as u16,
    }
}

/// `value` rounded to what half precision holds.
pub fn round_to_f16(value: f32) -> f32 {
    f16_to_f32(f32_to_f16(value))
}

/// The value of a bfloat16: the upper half of an `f32`.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_has_the_value_of_its_definition() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            let exponent = i32::from(bits >> 10 & 0x1f);
            let fraction = f64::from(bits & 0x3ff) / 1024.0;
            assert_eq!(value.is_sign_negative(), bits & 0x8000 != 0);
            match exponent {
                31 if fraction == 0.0 => assert!(value.is_infinite()),
                31 => assert!(value.is_nan()),
                0 => assert_eq!(f64::from(value.abs()), fraction * 2f64.powi(-14)),
                _ => assert_eq!(f64::from(value.abs()), (1.0 + fraction) * 2f64.powi(exponent - 15)),
            }
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_ties_to_even() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            if value.is_nan() {
                assert!(round_to_f16(value).is_nan());
                continue;
            }
            assert_eq!(f32_to_f16(value), bits);
            if value.is_infinite() || f16_to_f32(bits + 1).is_infinite() {
                continue;
            }
            // The middle between two neighbours goes to the even one, what is beside it to the nearer.
            let middle = (value + f16_to_f32(bits + 1)) / 2.0;
            assert_eq!(f32_to_f16(middle), if bits % 2 == 0 { bits } else { bits + 1 }, "{middle:e}");
            let (below, above) = (f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1));
            assert_eq!((f32_to_f16(below), f32_to_f16(above)), (bits, bits + 1), "{middle:e}");
        }
        assert_eq!(f32_to_f16(65519.99), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(-1e30), 0xfc00);
        assert_eq!(f32_to_f16(1e-30), 0);
    }

    #[test]
    fn bf16_is_a_shortened_f32() {
        assert_eq!(bf16_to_f32(0x3fc0), 1.5);
        assert_eq!(bf16_to_f32(0xc000), -2.0);
        assert!(bf16_to_f32(0x7fc0).is_nan());
    }
}
