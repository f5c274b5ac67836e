//! Kernels as data: a folder of expanded WGSL and one line of JSON for each kernel, so that a search needs no other program.
//!
//! `kernels.jsonl` has a [`KernelLine`] a line. A kernel computes one of the problems that [`Task`] knows; its dispatches name a
//! shader of the folder and an entry point, and give the constants, the operands in the order of their bindings and the number
//! of workgroups. Bind group 1 is the executor's, as in `shaders/shared/grid.wgsl`.

use crate::graph::{Lowered, Operand};
use crate::kernels::reflect::{BindingKind as Reflected, Module, reflect};
use crate::kernels::{Binding, BindingKind, Dispatch, Kernel, MatrixUnits, Problem, Target};
use crate::ops::conv2d::Task;
use crate::shape::Element;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Most workgroups of a dispatch: 65,535 in each of two dimensions.
const MOST_WORKGROUPS: u64 = 65_535 * 65_535;

/// Name of the file that lists a folder's kernels.
pub const LIST: &str = "kernels.jsonl";

/// A kernel of a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelLine {
    /// Its name, the only one of the folder.
    pub kernel: String,
    /// What is peculiar to it.
    pub design: String,
    /// What it computes.
    pub problem: Problem,
    /// Whole numbers from `-radius` to `radius` are its inputs where it is proven.
    pub radius: u32,
    /// Bytes of its scratch buffers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scratch: Vec<u64>,
    /// What runs, one after the other.
    pub dispatches: Vec<DispatchLine>,
    /// For each output the sum that `shaders/whole_sums.wgsl` forms of its elements. Empty for a probe: a kernel that leaves work
    /// out to show what the rest costs, and has no right result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<u32>,
}

/// A dispatch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchLine {
    /// File of the folder.
    pub shader: String,
    /// Its entry point.
    pub entry: String,
    /// Words of its constants.
    pub params: Vec<u32>,
    /// What is bound, in the order of the bindings that are no uniforms.
    pub operands: Vec<OperandName>,
    /// Workgroups in all.
    pub workgroups: u64,
}

/// An operand as text: `input 0`, `output 1`, `scratch 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct OperandName(pub Operand);

impl From<OperandName> for String {
    fn from(name: OperandName) -> String {
        match name.0 {
            Operand::Input(index) => format!("input {index}"),
            Operand::Output(index) => format!("output {index}"),
            Operand::Scratch(index) => format!("scratch {index}"),
            Operand::Texture(index) => format!("texture {index}"),
        }
    }
}

impl TryFrom<String> for OperandName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.split_once(' ').and_then(|(kind, index)| {
            let index = index.parse().ok()?;
            match kind {
                "input" => Some(Operand::Input(index)),
                "output" => Some(Operand::Output(index)),
                "scratch" => Some(Operand::Scratch(index)),
                _ => None,
            }
        });
        parsed.map(OperandName).ok_or_else(|| format!("{text:?} is no operand: input, output or scratch and a number"))
    }
}

/// What is wrong with a folder of kernels.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line does not say what a kernel is.
    #[error("{}, line {line}: {why}", path.display())]
    Line {
        /// The list.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        why: String,
    },
}

/// A folder of kernels, read and checked.
pub struct KernelFolder {
    /// Kernels in the order of the list.
    pub kernels: Vec<FolderKernel>,
}

/// A kernel ready to be lowered to.
pub struct FolderKernel {
    /// As in the list.
    pub line: KernelLine,
    /// Its dispatches, or what is wrong with one of its shaders.
    pub lowered: Result<Lowered, String>,
}

/// Shaders of a folder that were read: what is wrong with one is told for each kernel that uses it.
type Shaders = BTreeMap<String, Result<Entries, String>>;

/// The entry points of a shader, each with the bytes of its constants.
type Entries = BTreeMap<String, (&'static Kernel, usize)>;

impl KernelFolder {
    /// Reads a folder. A shader that naga refuses is told where its kernels are tried; what the list gets wrong is an error.
    pub fn open(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(LIST);
        let text = fs::read_to_string(&path).map_err(|error| FolderError::Unreadable { path: path.clone(), error })?;
        let mut shaders = Shaders::new();
        let mut kernels: Vec<FolderKernel> = Vec::new();
        for (index, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let wrong = |why: String| FolderError::Line { path: path.clone(), line: index + 1, why };
            let line: KernelLine = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            if kernels.iter().any(|other| other.line.kernel == line.kernel) {
                return Err(wrong(format!("there is a kernel {:?} already", line.kernel)));
            }
            for dispatch in &line.dispatches {
                if !shaders.contains_key(&dispatch.shader) {
                    shaders.insert(dispatch.shader.clone(), read_shader(folder, &dispatch.shader)?);
                }
            }
            let lowered = lower(&line, &shaders).map_err(wrong)?;
            kernels.push(FolderKernel { line, lowered });
        }
        Ok(KernelFolder { kernels })
    }

    /// The problems, each once, in the order of the list.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found: Vec<Problem> = Vec::new();
        for kernel in &self.kernels {
            if !found.contains(&kernel.line.problem) {
                found.push(kernel.line.problem.clone());
            }
        }
        found
    }
}

impl FolderKernel {
    /// Why a device cannot run it, where it cannot.
    pub fn unfit(&self, target: &Target, limits: &[(&'static str, u64)]) -> Option<String> {
        let lowered = self.lowered.as_ref().ok()?;
        let limit = |name: &str| limits.iter().find(|(known, _)| *known == name).map_or(u64::MAX, |(_, value)| *value);
        lowered.dispatches.iter().find_map(|dispatch| {
            let kernel = dispatch.kernel;
            let units = if kernel.source.contains("coop_mat8x8") { MatrixUnits::Eight } else { MatrixUnits::Sixteen };
            let invocations: u32 = kernel.workgroup_size.iter().product();
            let most_bytes = limit("max_compute_workgroup_storage_size");
            match () {
                () if kernel.matrices && target.matrix_units != units => Some(format!("it wants matrix units: {units:?}")),
                () if kernel.f16 && !target.f16 => Some("it wants f16".into()),
                () if kernel.int64 && !target.int64 => Some("it wants integers of 64 bits".into()),
                () if kernel.subgroups && target.subgroup.is_none() => Some("it wants subgroups of one size".into()),
                () if u64::from(kernel.workgroup_bytes) > most_bytes => {
                    Some(format!("it wants {} bytes of workgroup memory, over {most_bytes}", kernel.workgroup_bytes))
                }
                () if u64::from(invocations) > limit("max_compute_invocations_per_workgroup") => {
                    Some(format!("it wants {invocations} invocations a workgroup"))
                }
                () => None,
            }
        })
    }
}

/// The entry points of a shader, which live as long as the program: pipelines are kept by kernel.
fn read_shader(folder: &Path, file: &str) -> Result<Result<Entries, String>, FolderError> {
    let path = folder.join(file);
    let source = fs::read_to_string(&path).map_err(|error| FolderError::Unreadable { path, error })?;
    Ok(reflect(file, &source).map(|module| {
        let source: &'static str = source.leak();
        let name: &'static str = file.trim_end_matches(".wgsl").to_string().leak();
        kernels_of(&module, name, source)
    }))
}

fn kernels_of(module: &Module, name: &'static str, source: &'static str) -> Entries {
    let size_of = |name: &str| module.uniforms.iter().find(|uniform| uniform.name == name).map_or(0, |uniform| uniform.size as usize);
    let kernel = |entry: &crate::kernels::reflect::Entry| {
        let bindings: Vec<Binding> = entry
            .bindings
            .iter()
            .map(|binding| Binding {
                index: binding.index,
                name: binding.name.clone().leak(),
                kind: match &binding.kind {
                    Reflected::Uniform(_) => BindingKind::Params,
                    Reflected::StorageRead => BindingKind::Read,
                    Reflected::StorageReadWrite => BindingKind::ReadWrite,
                    Reflected::Texture => BindingKind::Texture,
                    Reflected::TextureWrite => BindingKind::TextureWrite,
                },
                element: if binding.half { Element::F16 } else { Element::F32 },
            })
            .collect();
        let kernel: &'static Kernel = Box::leak(Box::new(Kernel {
            module: name,
            entry: entry.name.clone().leak(),
            source,
            workgroup_size: entry.workgroup_size,
            workgroup_bytes: entry.workgroup_bytes,
            divisible: entry.divisible,
            subgroups: module.subgroups,
            int64: module.int64,
            f16: module.f16,
            matrices: module.matrices,
            half: None,
            bindings: bindings.leak(),
        }));
        let constants = entry.bindings.iter().filter_map(|binding| match &binding.kind {
            Reflected::Uniform(name) => Some(size_of(name)),
            _ => None,
        });
        (kernel, constants.sum())
    };
    module.entries.iter().map(|entry| (entry.name.clone(), kernel(entry))).collect()
}

/// The kernel's dispatches; the inner error is a shader's, the outer one the list's.
fn lower(line: &KernelLine, shaders: &Shaders) -> Result<Result<Lowered, String>, String> {
    let Some(task) = Task::new(&line.problem) else { return Err(format!("{} is no problem that can be computed", line.problem)) };
    if line.dispatches.is_empty() {
        return Err("a kernel has at least one dispatch".into());
    }
    if let Some(bytes) = line.scratch.iter().find(|bytes| **bytes == 0 || !bytes.is_multiple_of(4)) {
        return Err(format!("a scratch buffer of {bytes} bytes: not a multiple of 4"));
    }
    if !line.expected.is_empty() && line.expected.len() != task.outputs.len() {
        return Err(format!("{} expected sums, but {} outputs", line.expected.len(), task.outputs.len()));
    }
    let mut dispatches = Vec::new();
    for dispatch in &line.dispatches {
        let entries = match shaders.get(&dispatch.shader) {
            Some(Ok(entries)) => entries,
            Some(Err(why)) => return Ok(Err(why.clone())),
            None => return Err(format!("{} was not read", dispatch.shader)),
        };
        let name = format!("{}::{}", dispatch.shader, dispatch.entry);
        let (kernel, constants) = *entries.get(&dispatch.entry).ok_or_else(|| format!("{name}: there is no such entry point"))?;
        if constants != dispatch.params.len() * 4 {
            return Err(format!("{name} takes {constants} bytes of constants, not {}", dispatch.params.len() * 4));
        }
        if !(1..=MOST_WORKGROUPS).contains(&dispatch.workgroups) {
            return Err(format!("{name}: {} workgroups, not 1 to {MOST_WORKGROUPS}", dispatch.workgroups));
        }
        let wanted = kernel.storage().count();
        if wanted != dispatch.operands.len() {
            return Err(format!("{name} binds {wanted} operands, not {}", dispatch.operands.len()));
        }
        let exists = |operand: &OperandName| match operand.0 {
            Operand::Input(index) => index < task.inputs.len(),
            Operand::Output(index) => index < task.outputs.len(),
            Operand::Scratch(index) => index < line.scratch.len(),
            Operand::Texture(_) => false,
        };
        if let Some(missing) = dispatch.operands.iter().find(|operand| !exists(operand)) {
            return Err(format!("{name}: there is no {}", String::from(*missing)));
        }
        dispatches.push(Dispatch {
            kernel,
            params: bytemuck::cast_slice(&dispatch.params).to_vec(),
            buffers: dispatch.operands.iter().map(|operand| operand.0).collect(),
            workgroups: dispatch.workgroups,
        });
    }
    Ok(Ok(Lowered { dispatches, scratch: line.scratch.clone(), ..Default::default() }))
}

/// The weight of a row or a channel in `shaders/whole_sums.wgsl`.
pub fn weight_of(index: u32) -> u32 {
    let hash = index.wrapping_mul(0x9e37_79b1);
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x85eb_ca77);
    (hash ^ (hash >> 13)) | 1
}
