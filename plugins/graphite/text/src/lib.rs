//! Samples as text: what the bundled handlers share.
//!
//! - [`date`]: seconds since 1970 as a date (UTC), and back
//! - [`number`]: numbers as the shortest text that reads back as the same number
//! - [`lines`]: Graphite's plaintext, `PREFIX.ELEMENT.METRIC VALUE SECONDS`; uses `number`

pub mod date;
pub mod lines;
pub mod number;

pub use date::Date;
pub use lines::{Lines, Plaintext};
