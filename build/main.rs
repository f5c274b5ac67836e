//! Build script: turns `shaders/*.wgsl` into the typed kernel table of `src/kernels`.
//!
//! For every shader, and its twin in half precision where it has one: expand the preprocessing (`expand`), parse and validate with naga, reflect bindings, workgroup
//! sizes and uniform structs (`reflect`), and write Rust items (`emit`). A shader that does not validate fails the
//! build with naga's own message and the line of the expanded source.

mod emit;
mod expand;
#[path = "../src/kernels/reflect.rs"]
mod reflect;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/kernels/reflect.rs");
    if let Err(message) = run() {
        eprintln!("{message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run through cargo")?);
    let expanded_dir = out_dir.join("shaders");
    fs::create_dir_all(&expanded_dir).map_err(|e| format!("{}: {e}", expanded_dir.display()))?;

    let mut modules = Vec::new();
    for path in shader_files(Path::new("shaders"))? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let expanded = expand::expand_file(Path::new("shaders"), &path)?;
        let reflected = |name: &str, source: &str| {
            fs::write(expanded_dir.join(format!("{name}.wgsl")), source).map_err(|e| format!("{name}: {e}"))?;
            reflect::reflect(name, source)
        };
        let mut module = reflected(&name, &expanded.single)?;
        if let Some(source) = &expanded.half {
            let twin = reflected(&format!("{name}_f16"), source)?;
            module.half = Some(Box::new(twin));
        }
        modules.push(module);
    }
    let table = emit::emit(&modules)?;
    fs::write(out_dir.join("kernels.rs"), table).map_err(|e| format!("kernels.rs: {e}"))
}

/// The shaders at the top of `dir`, sorted by name; files in subfolders are for import only.
fn shader_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|e| e == "wgsl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
