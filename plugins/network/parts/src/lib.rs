//! What the bundled collectors share: units of data, and something kept for each row of a table.

mod byte_unit;
mod kept;

pub use byte_unit::ByteUnit;
pub use kept::Kept;
