//! Which kernels to compile, and what they bind.

use ash::vk::DescriptorType;
use naga::valid::ModuleInfo;
use naga::{AddressSpace, ImageClass, Module, TypeInner};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// An entry point of a shader.
pub struct Kernel {
    pub name: String,
    pub file: PathBuf,
    pub entry: String,
}

/// A resource: group, number in it, and how it is bound.
pub type Binding = (u32, u32, DescriptorType);

/// The kernels that `kernels.jsonl` lists, each pair of shader and entry point once; where there is no such file, every entry
/// point of every `.wgsl` file.
pub fn of_folder(folder: &Path) -> Result<Vec<Kernel>, String> {
    let list = folder.join("kernels.jsonl");
    let kernels = match std::fs::read_to_string(&list) {
        Ok(text) => listed(folder, &list, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => found(folder)?,
        Err(error) => return Err(format!("{}: {error}", list.display())),
    };
    if kernels.is_empty() {
        return Err(format!("{} holds no kernels: neither a kernels.jsonl that names some nor .wgsl files", folder.display()));
    }
    Ok(kernels)
}

/// One entry point of one file.
pub fn of_file(file: &Path, entry: &str, name: Option<&str>) -> Result<Kernel, String> {
    if !file.is_file() {
        return Err(format!("{}: no such file", file.display()));
    }
    let name = name.map_or_else(|| stem(file), str::to_string);
    Ok(Kernel { name, file: file.to_path_buf(), entry: entry.to_string() })
}

fn listed(folder: &Path, list: &Path, text: &str) -> Result<Vec<Kernel>, String> {
    let mut seen = HashSet::new();
    let mut kernels = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |what: &str| format!("{}, line {}: {what}", list.display(), number + 1);
        let object: Value = serde_json::from_str(line).map_err(|error| bad(&error.to_string()))?;
        let text_of = |value: &Value, key: &str| value[key].as_str().map(str::to_string).ok_or(bad(&format!("no \"{key}\"")));
        let name = text_of(&object, "kernel")?;
        for dispatch in object["dispatches"].as_array().ok_or(bad("no \"dispatches\""))? {
            let (shader, entry) = (text_of(dispatch, "shader")?, text_of(dispatch, "entry")?);
            if seen.insert((shader.clone(), entry.clone())) {
                kernels.push(Kernel { name: name.clone(), file: folder.join(shader), entry });
            }
        }
    }
    Ok(kernels)
}

fn found(folder: &Path) -> Result<Vec<Kernel>, String> {
    let files = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files: BTreeSet<PathBuf> =
        files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "wgsl")).collect();
    let mut kernels = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let (module, _) = crate::spirv::parse(&file.display().to_string(), &source)?;
        let entries = module.entry_points.iter().map(|entry| entry.name.clone());
        kernels.extend(entries.map(|entry| Kernel { name: stem(&file), file: file.clone(), entry }));
    }
    Ok(kernels)
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What an entry point binds.
pub fn bindings(module: &Module, info: &ModuleInfo, entry: &str) -> Result<Vec<Binding>, String> {
    let numbered = crate::spirv::numbered(module, info, entry)?;
    let resources = module.global_variables.iter().filter_map(|(_, variable)| variable.binding.map(|at| (at, variable)));
    resources
        .filter_map(|(at, variable)| numbered.get(&at).map(|number| (at, *number, variable)))
        .map(|(at, number, variable)| {
            let kind = match (variable.space, &module.types[variable.ty].inner) {
                (AddressSpace::Uniform, _) => DescriptorType::UNIFORM_BUFFER,
                (AddressSpace::Storage { .. }, _) => DescriptorType::STORAGE_BUFFER,
                (AddressSpace::Handle, TypeInner::Image { class: ImageClass::Storage { .. }, .. }) => DescriptorType::STORAGE_IMAGE,
                (AddressSpace::Handle, TypeInner::Image { .. }) => DescriptorType::SAMPLED_IMAGE,
                (AddressSpace::Handle, TypeInner::Sampler { .. }) => DescriptorType::SAMPLER,
                _ => return Err(format!("binding {} of group {} is of a kind that kernels do not have", at.binding, at.group)),
            };
            Ok((at.group, number, kind))
        })
        .collect()
}
