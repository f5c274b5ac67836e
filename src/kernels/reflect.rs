//! Reads from a validated shader what the host needs to dispatch it.

use naga::proc::Layouter;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ImageClass, ImageDimension, ScalarKind, StorageAccess, StorageFormat, TypeInner};

/// Bind group of `shaders/shared/grid.wgsl`; group 0 is the kernel's own.
const EXECUTOR_GROUP: u32 = 1;

/// One expanded shader file.
pub struct Module {
    pub name: String,
    /// First paragraph of the file's header comment, for the generated documentation.
    pub summary: String,
    /// Whether it uses operations on subgroups, which a device may lack.
    pub subgroups: bool,
    /// Whether it uses integers of 64 bits, which a device may lack.
    pub int64: bool,
    /// Whether it uses f16, which a device may lack.
    pub f16: bool,
    /// Whether it multiplies matrices on units that a device may lack.
    pub matrices: bool,
    /// The same shader with activations in half precision; its entry points and uniforms are these.
    pub half: Option<Box<Module>>,
    pub uniforms: Vec<UniformStruct>,
    pub entries: Vec<Entry>,
}

/// A struct used by a `var<uniform>`; its fields are scalars of four bytes.
#[derive(Clone, PartialEq)]
pub struct UniformStruct {
    pub name: String,
    pub fields: Vec<(String, &'static str)>,
    /// Bytes in the uniform address space.
    pub size: u32,
}

pub struct Entry {
    pub name: String,
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Whether it reads what the executor binds: the number of the dispatch's first workgroup.
    pub divisible: bool,
    pub bindings: Vec<Binding>,
}

#[derive(Clone)]
pub struct Binding {
    pub index: u32,
    pub name: String,
    pub kind: BindingKind,
    /// Whether it holds f16.
    pub half: bool,
}

#[derive(Clone, PartialEq)]
pub enum BindingKind {
    /// `var<uniform>` of the named struct.
    Uniform(String),
    StorageRead,
    StorageReadWrite,
    /// `texture_2d<f32>`.
    Texture,
    /// `texture_storage_2d<rgba32float, write>`.
    TextureWrite,
}

/// Parses, validates and reflects one expanded shader. Errors carry naga's message with source lines.
pub fn reflect(name: &str, source: &str) -> Result<Module, String> {
    let path = format!("{name}.wgsl (expanded)");
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string_with_path(source, &path))?;
    let message = |error: naga::WithSpan<naga::valid::ValidationError>| error.emit_to_string_with_path(source, &path);
    let validate = |capabilities| Validator::new(ValidationFlags::all(), capabilities).validate(&module).map_err(message);
    // The least that the shader asks of a device.
    let optional = [Capabilities::SUBGROUP, Capabilities::SHADER_INT64, Capabilities::SHADER_FLOAT16, Capabilities::COOPERATIVE_MATRIX];
    // What wgpu offers on every device that computes: packing two halves into a word.
    let all = optional.into_iter().collect::<Capabilities>() | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let mut info = validate(all)?;
    let mut needed = all;
    for left_out in optional {
        if let Ok(enough) = validate(needed - left_out) {
            (info, needed) = (enough, needed - left_out);
        }
    }
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| format!("{path}: {e}"))?;

    let mut uniforms: Vec<UniformStruct> = Vec::new();
    let mut entries = Vec::new();
    for (index, entry) in module.entry_points.iter().enumerate() {
        let usage = info.get_entry_point(index);
        let mut bindings = Vec::new();
        let mut workgroup_bytes = 0;
        let mut divisible = false;
        for (handle, global) in module.global_variables.iter() {
            if usage[handle].is_empty() {
                continue;
            }
            if global.binding.as_ref().is_some_and(|slot| slot.group == EXECUTOR_GROUP) {
                divisible = true;
                continue;
            }
            let global_name = global.name.clone().unwrap_or_default();
            let kind = match global.space {
                AddressSpace::Uniform => {
                    let uniform = uniform_struct(&module, &layouter, global.ty).map_err(|e| format!("{path}: {global_name}: {e}"))?;
                    let kind = BindingKind::Uniform(uniform.name.clone());
                    if !uniforms.contains(&uniform) {
                        uniforms.push(uniform);
                    }
                    kind
                }
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => BindingKind::StorageReadWrite,
                AddressSpace::Storage { .. } => BindingKind::StorageRead,
                AddressSpace::WorkGroup => {
                    workgroup_bytes += layouter[global.ty].size;
                    continue;
                }
                AddressSpace::Handle => texture_kind(&module.types[global.ty].inner)
                    .ok_or_else(|| format!("{path}: {global_name}: only texture_2d<f32> and texture_storage_2d<rgba32float, write>"))?,
                _ => continue,
            };
            let slot = global.binding.as_ref().ok_or_else(|| format!("{path}: {global_name} has no binding"))?;
            let half = holds_f16(&module, global.ty);
            bindings.push(Binding { index: slot.binding, name: global_name, kind, half });
        }
        bindings.sort_by_key(|b| b.index);
        entries.push(Entry { name: entry.name.clone(), workgroup_size: entry.workgroup_size, workgroup_bytes, divisible, bindings });
    }
    if entries.is_empty() {
        return Err(format!("{path}: no entry point; files that are only imported belong in shaders/shared/"));
    }
    let [subgroups, int64, f16, matrices] = optional.map(|capability| needed.contains(capability));
    Ok(Module { name: name.to_string(), summary: header(source), subgroups, int64, f16, matrices, half: None, uniforms, entries })
}

/// Whether a binding is an array of f16, or of vectors of them.
fn holds_f16(module: &naga::Module, ty: naga::Handle<naga::Type>) -> bool {
    match module.types[ty].inner {
        TypeInner::Array { base, .. } => holds_f16(module, base),
        TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => scalar.kind == ScalarKind::Float && scalar.width == 2,
        _ => false,
    }
}

fn texture_kind(ty: &TypeInner) -> Option<BindingKind> {
    let TypeInner::Image { dim: ImageDimension::D2, arrayed: false, class } = ty else { return None };
    match class {
        ImageClass::Sampled { kind: ScalarKind::Float, multi: false } => Some(BindingKind::Texture),
        ImageClass::Storage { format: StorageFormat::Rgba32Float, access } if *access == StorageAccess::STORE => {
            Some(BindingKind::TextureWrite)
        }
        _ => None,
    }
}

fn uniform_struct(module: &naga::Module, layouter: &Layouter, ty: naga::Handle<naga::Type>) -> Result<UniformStruct, String> {
    let TypeInner::Struct { members, .. } = &module.types[ty].inner else {
        return Err("a uniform must be a struct".into());
    };
    let mut fields = Vec::new();
    for (position, member) in members.iter().enumerate() {
        let name = member.name.clone().unwrap_or_default();
        let TypeInner::Scalar(scalar) = module.types[member.ty].inner else {
            return Err(format!("field {name} must be u32, i32 or f32"));
        };
        let rust = match scalar.kind {
            ScalarKind::Uint => "u32",
            ScalarKind::Sint => "i32",
            ScalarKind::Float => "f32",
            _ => return Err(format!("field {name} must be u32, i32 or f32")),
        };
        if scalar.width != 4 || member.offset as usize != position * 4 {
            return Err(format!("field {name} must be four bytes wide"));
        }
        fields.push((name, rust));
    }
    let name = module.types[ty].name.clone().ok_or("a uniform struct needs a name")?;
    Ok(UniformStruct { name, fields, size: layouter[ty].size.next_multiple_of(16) })
}

fn header(source: &str) -> String {
    let mut lines = Vec::new();
    for line in source.lines() {
        match line.strip_prefix("//") {
            Some(text) if !text.trim().is_empty() => lines.push(text.trim().to_string()),
            _ => break,
        }
    }
    lines.join("\n")
}
