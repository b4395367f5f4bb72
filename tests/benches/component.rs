//! The component with known work, and the agent's binary.

use std::path::Path;
use std::process::Command;

const TARGET: &str = "wasm32-wasip2";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/components/bench-collector");

/// Builds `components/bench-collector` and gives the path of its file.
pub(crate) fn bench_collector() -> String {
    let target_dir = Path::new(env!("TARGET_DIR")).join("bench-components");
    let built = Command::new(env!("CARGO"))
        .current_dir(SOURCE)
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .status();
    assert!(built.is_ok_and(|status| status.success()), "building {SOURCE} failed; see above");
    let file = target_dir.join(TARGET).join("release/bench_collector.wasm");
    file.to_str().unwrap().to_owned()
}

/// The binary that users run, not one of the benchmarks' own: `KIMBERLITE_BINARY`, else what
/// `cargo build --release` made.
pub(crate) fn kimberlite() -> String {
    let built = || format!("{}/release/kimberlite", env!("TARGET_DIR"));
    let binary = std::env::var("KIMBERLITE_BINARY").unwrap_or_else(|_| built());
    assert!(Path::new(&binary).exists(), "there is no {binary}: run `cargo build --release` first");
    binary
}
