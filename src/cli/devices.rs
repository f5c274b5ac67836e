//! `nin-wgpu devices`: the adapters there are.

use super::context::Context;
use super::error::{Exit, Failure};
use super::format;
use super::table::{Align, Table};
use crate::gpu::{AdapterDescription, adapters, no_adapter};
use serde::Serialize;
use serde_json::{Map, Value};

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    index: usize,
    name: &'a str,
    backend: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    driver: &'a str,
    limits: Map<String, Value>,
    features: &'a [String],
    cores: Option<u32>,
}

impl<'a> From<&'a AdapterDescription> for Entry<'a> {
    fn from(adapter: &'a AdapterDescription) -> Self {
        Entry {
            index: adapter.index,
            name: &adapter.name,
            backend: adapter.backend,
            kind: adapter.kind,
            driver: &adapter.driver,
            limits: adapter.limits.iter().map(|(name, value)| ((*name).to_string(), Value::from(*value))).collect(),
            features: &adapter.features,
            cores: adapter.cores,
        }
    }
}

/// Lists the adapters; without any, says what to install.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let found = adapters();
    if args.json {
        context.print_json(&found.iter().map(Entry::from).collect::<Vec<_>>())?;
    }
    if found.is_empty() {
        return Err(no_adapter().into());
    }
    if !args.json {
        context.print(&text(&found, context.is_verbose()))?;
    }
    Ok(Exit::Done)
}

fn text(found: &[AdapterDescription], is_verbose: bool) -> String {
    let mut table = Table::new(&[
        ("index", Align::Right),
        ("name", Align::Left),
        ("backend", Align::Left),
        ("type", Align::Left),
        ("largest tensor", Align::Right),
        ("driver", Align::Left),
    ]);
    for adapter in found {
        let binding = adapter.limits.iter().find(|(name, _)| *name == "max_storage_buffer_binding_size");
        table.row(vec![
            adapter.index.to_string(),
            adapter.name.clone(),
            adapter.backend.to_string(),
            adapter.kind.to_string(),
            binding.map_or(String::new(), |(_, bytes)| format::bytes(*bytes)),
            adapter.driver.clone(),
        ]);
    }
    let mut text = table.render();
    for adapter in found.iter().filter(|_| is_verbose) {
        text.push_str(&format!("\n{}: {}\n", adapter.index, adapter.name));
        for (name, value) in &adapter.limits {
            text.push_str(&format!("  {name} {}\n", format::thousands(*value)));
        }
        text.push_str(&format!("  features {}\n", adapter.features.join(" ")));
        text.push_str(&format!("  cores {}\n", adapter.cores.map_or("unknown".into(), |cores| cores.to_string())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> AdapterDescription {
        AdapterDescription {
            index: 0,
            name: "llvmpipe".into(),
            backend: "vulkan",
            kind: "cpu",
            driver: "Mesa 22.3.6".into(),
            ids: [0x10005, 0],
            limits: vec![("max_buffer_size", 1 << 30), ("max_storage_buffer_binding_size", 128 << 20)],
            features: vec!["TIMESTAMP_QUERY".into()],
            cores: Some(132),
        }
    }

    #[test]
    fn json_has_the_documented_keys_in_order() {
        assert_eq!(
            serde_json::to_string(&[Entry::from(&adapter())]).unwrap(),
            r#"[{"index":0,"name":"llvmpipe","backend":"vulkan","type":"cpu","driver":"Mesa 22.3.6","limits":{"max_buffer_size":1073741824,"max_storage_buffer_binding_size":134217728},"features":["TIMESTAMP_QUERY"],"cores":132}]"#
        );
    }

    #[test]
    fn text_has_a_line_per_adapter_and_details_on_request() {
        let short = text(&[adapter()], false);
        assert_eq!(short.lines().count(), 2);
        assert!(short.contains("128.0 MiB"), "{short}");
        let long = text(&[adapter()], true);
        assert!(long.contains("max_buffer_size 1,073,741,824") && long.contains("cores 132"), "{long}");
        assert!(text(&[AdapterDescription { cores: None, ..adapter() }], true).contains("cores unknown"));
    }
}
