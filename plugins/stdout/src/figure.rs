//! A number for the eye: at most three decimals, in two parts so that points stand below points.

use std::fmt::Write;

/// `12` and `.5` of 12.5. What is too large or too small to read is written with an exponent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    text: [u8; 24],
    length: usize,
    point: usize,
}

impl Figure {
    pub(crate) fn new(value: f64) -> Self {
        let mut figure = Self { text: [0; 24], length: 0, point: 0 };
        let size = value.abs();
        // All of these are shorter than 24 characters.
        let _ = if size != 0.0 && !(0.001..1e15).contains(&size) {
            write!(figure, "{value:.3e}")
        } else {
            write!(figure, "{value:.3}")
        };
        figure.trim();
        figure
    }

    /// What stands before the point, or all if there is none.
    pub(crate) fn whole(&self) -> &str {
        self.part(0..self.point)
    }

    /// The point and what stands behind it.
    pub(crate) fn fraction(&self) -> &str {
        self.part(self.point..self.length)
    }

    fn part(&self, range: std::ops::Range<usize>) -> &str {
        std::str::from_utf8(&self.text[range]).unwrap_or_default()
    }

    /// Zeros at the end of a fraction say nothing; `-0` is 0.
    fn trim(&mut self) {
        let text = &self.text[..self.length];
        self.point = text.iter().position(|c| *c == b'.').unwrap_or(self.length);
        if !text.contains(&b'e') && self.point < self.length {
            let digits = text.iter().rposition(|c| *c != b'0').map_or(0, |last| last + 1);
            self.length = if digits == self.point + 1 { self.point } else { digits };
        }
        if &self.text[..self.length] == b"-0" {
            self.text[0] = b'0';
            (self.length, self.point) = (1, 1);
        }
    }
}

impl Write for Figure {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.text.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.whole())?;
        f.write_str(self.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (12.5, "12.5"),
            (100.0, "100"),
            (100.0 / 3.0, "33.333"),
            (-0.25, "-0.25"),
            (2_048_000.0, "2048000"),
            (0.000_12, "1.200e-4"),
            (1e18, "1.000e18"),
            (-f64::MAX, "-1.798e308"),
            (999_999_999_999_999.9, "999999999999999.875"),
        ];
        for (value, text) in cases {
            assert_eq!(Figure::new(value).to_string(), text);
        }
    }

    #[test]
    fn point_parts_it() {
        let figure = Figure::new(12.5);
        assert_eq!((figure.whole(), figure.fraction()), ("12", ".5"));
        let figure = Figure::new(7.0);
        assert_eq!((figure.whole(), figure.fraction()), ("7", ""));
    }
}
