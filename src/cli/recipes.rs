//! `nin-wgpu recipes`: what `train --recipe` can be given by name.

use super::context::Context;
use super::error::{Exit, Failure};
use super::table::{Align, Table};
use crate::train::recipes::{RECIPES, Recipe};
use serde::Serialize;

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    /// Print this recipe, to be kept in a file and changed
    name: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    model: String,
    data: String,
    about: &'static str,
}

/// Lists the recipes, or prints one.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if let Some(name) = &args.name {
        let Some(recipe) = Recipe::find(name) else {
            let names: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            return Err(Failure::Usage(format!("there is no recipe '{name}'; there are: {}", names.join(", "))));
        };
        context.print(recipe.text)?;
        return Ok(Exit::Done);
    }
    let entry = |recipe: &Recipe| {
        let config = recipe.config()?;
        Ok(Entry { name: recipe.name, model: config.model, data: config.data, about: recipe.about() })
    };
    let entries = RECIPES.iter().map(entry).collect::<Result<Vec<_>, Failure>>()?;
    if args.json {
        context.print_json(&entries)?;
    } else {
        let mut table = Table::new(&[("name", Align::Left), ("model", Align::Left), ("data", Align::Left), ("", Align::Left)]);
        for Entry { name, model, data, about } in entries {
            table.row(vec![name.into(), model, data, about.into()]);
        }
        context.print(&table.render())?;
    }
    Ok(Exit::Done)
}
