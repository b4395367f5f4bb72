//! Components for tests: where `build.rs` put them, and one in Python.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Misbehaves as its settings say.
pub const HOSTILE_COLLECTOR: &str = env!("HOSTILE_COLLECTOR");
/// Misbehaves as its settings say.
pub const HOSTILE_HANDLER: &str = env!("HOSTILE_HANDLER");
/// The hostile collector, but wherever it would grow its memory it grows a table.
pub const GROWS_TABLES: &str = env!("GROWS_TABLES");

/// The version that the Python component is built with.
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

/// The collector in Python, built once and kept; none: it cannot be built here, which only outside
/// of CI is no failure.
pub fn python() -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = Path::new(env!("TARGET_DIR")).join("test-python");
    let (venv, built) = (kept.join("venv"), kept.join("python.wasm"));
    let source = here.join("components/python");
    if is_older(&built, &[&source.join("app.py"), &here.join("../wit")]) {
        fs::create_dir_all(&kept).unwrap();
        let tool = venv.join("bin/componentize-py");
        let made = tool.exists()
            || run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
                && run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", COMPONENTIZE_PY]));
        if !made {
            assert!(std::env::var_os("CI").is_none(), "cannot install {COMPONENTIZE_PY}");
            // Not by `eprintln!`, which tests keep to themselves.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: no Python component, for {COMPONENTIZE_PY} is not there"
            );
            return None;
        }
        let aside = kept.join("python.wasm.new");
        let componentized = run(Command::new(tool)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .args(["-q", "-w", "collector-plugin", "-d"])
            .arg(here.join("../wit"))
            .arg("componentize")
            .arg("-p")
            .arg(&source)
            .args(["app", "-o"])
            .arg(&aside));
        assert!(componentized, "componentize-py failed; see above");
        fs::rename(&aside, &built).unwrap();
    }
    Some(built.to_str().unwrap().to_owned())
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// Folders count by the files in them.
fn is_older(file: &Path, sources: &[&Path]) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let Some(built) = changed(file) else { return true };
    let mut sources: Vec<_> = sources.iter().map(|path| path.to_path_buf()).collect();
    while let Some(source) = sources.pop() {
        if let Ok(entries) = fs::read_dir(&source) {
            sources.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
        } else if changed(&source).is_none_or(|changed| changed > built) {
            return true;
        }
    }
    false
}
