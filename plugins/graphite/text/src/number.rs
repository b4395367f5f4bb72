//! Numbers as the shortest text that reads back as the same number, without going through
//! `format!` where it matters.

use std::io::Write;

/// Whole numbers below this are written digit by digit, all others by the standard library.
const LARGEST_WHOLE: f64 = 1e15;

/// Appends `value`: whole numbers without a point, an exponent only below 1e-5 and from 1e16 on.
/// Valid in JSON, too, if `value` is finite.
pub fn push(out: &mut Vec<u8>, value: f64) {
    if value.abs() < LARGEST_WHOLE && value.trunc() == value {
        if value < 0.0 {
            out.push(b'-');
        }
        push_whole(out, value.abs() as u64);
    } else {
        let start = out.len();
        // Writing to memory cannot fail.
        let _ = write!(out, "{value:?}");
        if out[start..].ends_with(b".0") {
            out.truncate(out.len() - 2);
        }
    }
}

/// Appends `number`.
pub fn push_whole(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        push(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn whole_numbers_have_no_point() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (-1024.0, "-1024"),
            (999_999_999_999_999.0, "999999999999999"),
            (1e15, "1000000000000000"),
            (1e16, "1e16"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn every_text_reads_back_as_its_number() {
        for value in [1.5, -0.1, 100.0 / 3.0, 1e-5, 1.234e-7, 5e-324, f64::MAX, 9_007_199_254_740_993.0, 0.3]
        {
            assert_eq!(text(value).parse(), Ok(value));
            assert_eq!(text(-value).parse(), Ok(-value));
        }
        assert_eq!(text(33.333_333_333_333_336), "33.333333333333336");
        assert_eq!(text(12.5), "12.5");
    }

    #[test]
    fn largest_whole_number_fits() {
        let mut out = Vec::new();
        push_whole(&mut out, u64::MAX);
        assert_eq!(out, u64::MAX.to_string().as_bytes());
    }
}
