//! Half-precision numbers as files hold them, widened to `f32` without loss.

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
    fn bf16_is_a_shortened_f32() {
        assert_eq!(bf16_to_f32(0x3fc0), 1.5);
        assert_eq!(bf16_to_f32(0xc000), -2.0);
        assert!(bf16_to_f32(0x7fc0).is_nan());
    }
}
