//! Builds `plugins/*` for WebAssembly, so that one `cargo build` makes the whole agent: they end up
//! inside the binary, and as files in `target/plugins/` that an operator can copy.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-wasip2";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for watched in ["plugins", "plugin-sdk/src", "plugin-sdk/Cargo.toml", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }

    let plugins = plugins(&root)?;
    // OUT_DIR is TARGET_DIR/PROFILE/build/NAME-HASH/out.
    let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR has another shape")?.join("plugins");
    add_target(&root)?;
    fs::create_dir_all(&target_dir)?;
    build(&root, &target_dir, &plugins)?;

    let mut listed = String::from("pub static BUNDLED: &[Bundled] = &[\n");
    for name in &plugins {
        let built = target_dir.join(TARGET).join("plugin").join(format!("{}.wasm", name.replace('-', "_")));
        let copy = target_dir.join(format!("{name}.wasm"));
        fs::copy(&built, &copy)?;
        listed += &format!("    Bundled {{ name: {name:?}, wasm: include_bytes!({:?}) }},\n", copy.display());
    }
    listed += "];\n";
    fs::write(out.join("bundled.rs"), listed)?;
    Ok(())
}

/// One plugin, one folder.
fn plugins(root: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("plugins"))? {
        let entry = entry?;
        if entry.path().join("plugin.toml").exists() {
            names.push(entry.file_name().into_string().map_err(|name| format!("{name:?} is not UTF-8"))?);
        }
    }
    names.sort();
    Ok(names)
}

/// `rust-toolchain.toml` names the target and rustup brings it, unless it was told not to install
/// anything by itself; then it is asked once more, in so many words.
fn add_target(root: &Path) -> Result<(), Box<dyn Error>> {
    let rustc = env::var("RUSTC")?;
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    if sysroot.join("lib/rustlib").join(TARGET).exists() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(root).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("the target {TARGET} is missing: run `rustup target add {TARGET}`").into()),
    }
}

fn build(root: &Path, target_dir: &Path, plugins: &[String]) -> Result<(), Box<dyn Error>> {
    if plugins.is_empty() {
        return Ok(());
    }
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--locked", "--profile", "plugin", "--target", TARGET, "--target-dir"])
        .arg(target_dir);
    for name in plugins {
        cargo.args(["--package", name]);
    }
    // What this build was told about the host's own code is not meant for guests.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    // Panic messages would carry the paths of this machine into every plugin.
    cargo.env("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", format!("--remap-path-prefix={}=", root.display()));
    let status = cargo.status()?;
    if status.success() { Ok(()) } else { Err("building plugins/* failed; see above".into()) }
}
