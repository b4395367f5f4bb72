//! The plugins inside this binary: built by `build.rs` from `plugins/*`, no different from
//! anybody's.

/// A component by name.
#[derive(Debug)]
pub struct Bundled {
    pub name: &'static str,
    pub wasm: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// The component of that name.
pub fn find(name: &str) -> Option<&'static Bundled> {
    BUNDLED.iter().find(|bundled| bundled.name == name)
}
