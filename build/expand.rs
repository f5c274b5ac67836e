//! Shader preprocessing, deliberately small: text inclusion, integer names, and repetition.
//!
//! - `#import "shared/grid.wgsl"`: the file's text, once per shader, path relative to the shader root.
//! - `#define NAME expr`: an integer name, usable in later expressions.
//! - `#for i in a..b` ... `#end`: the lines in between once per `i`; nests.
//! - `#if expr` ... `#else` ... `#end`: the lines up to `#else` where the expression is not 0, those behind it where it is;
//!   names defined there hold behind `#end` as well. `#else` may be absent.
//! - `#in_place x in y` ... `#end`: the function in between, and a second one, called as the first and `_in_place`, that reads
//!   `y` where the first reads `x`: for a node whose output lies in the memory of that input.
//! - `${expr}`: replaced by the value of an integer expression (`+ - * / %`, parentheses, names).
//! - `${ELEMENT}`: replaced by the type in which activations and filters are stored. A shader that uses it is expanded
//!   twice, to `f32` and, for mixed precision, to `f16`. The name `HALF` is 1 in the second, else 0.
//!
//! WGSL has no macros and naga emits no unroll hints, so register tiles need repetition in the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Integer names and their values.
pub type Names = BTreeMap<String, i64>;

/// The name that stands for the stored type.
const ELEMENT: &str = "ELEMENT";

/// The name that is 1 where the stored type is f16, else 0.
const HALF: &str = "HALF";

/// A shader's text, once for each type that it stores activations in.
pub struct Expanded {
    /// With f32, which every device has.
    pub single: String,
    /// With f16, which a device must have; absent where the shader stores no activations.
    pub half: Option<String>,
}

/// Expands the shader at `path`; imports resolve against `root`.
pub fn expand_file(root: &Path, path: &Path) -> Result<Expanded, String> {
    expand_with(&[root], path, &Names::new())
}

/// Expands the shader at `path` with some names defined before its first line; an import resolves against the first of
/// `roots` that has it.
pub fn expand_with(roots: &[&Path], path: &Path, names: &Names) -> Result<Expanded, String> {
    let mut lines = Vec::new();
    inline_imports(roots, path, &mut BTreeSet::new(), &mut lines)?;
    let expand = |element| {
        let mut out = String::new();
        let mut names = names.clone();
        names.insert(HALF.into(), (element == "f16").into());
        expand_lines(&lines, &mut names, element, &mut out)?;
        Ok::<_, String>(out)
    };
    let (single, half) = (expand("f32")?, expand("f16")?);
    let half = (half != single).then(|| with_directive(&half, "enable f16;"));
    Ok(Expanded { single, half })
}

/// Puts a directive behind the header comment: WGSL wants it before every declaration.
fn with_directive(text: &str, directive: &str) -> String {
    let header: usize = text.split_inclusive('\n').take_while(|line| line.starts_with("//")).map(str::len).sum();
    format!("{}{directive}\n{}", &text[..header], &text[header..])
}

/// A source line and where it came from, for messages.
struct Line {
    text: String,
    origin: String,
}

fn inline_imports(roots: &[&Path], path: &Path, seen: &mut BTreeSet<String>, out: &mut Vec<Line>) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    for (number, text) in text.lines().enumerate() {
        let origin = format!("{}:{}", path.display(), number + 1);
        let Some(rest) = text.trim().strip_prefix("#import ") else {
            out.push(Line { text: text.to_string(), origin });
            continue;
        };
        let file = rest.trim().trim_matches('"').to_string();
        if seen.insert(file.clone()) {
            let found = roots.iter().map(|root| root.join(&file)).find(|path| path.exists());
            let path = found.ok_or_else(|| format!("{origin}: {file}: no such file"))?;
            inline_imports(roots, &path, seen, out).map_err(|e| format!("{origin}: {e}"))?;
        }
    }
    Ok(())
}

fn expand_lines(lines: &[Line], names: &mut Names, element: &str, out: &mut String) -> Result<(), String> {
    let mut at = 0;
    while at < lines.len() {
        let line = &lines[at];
        let fail = |message: String| format!("{}: {message}", line.origin);
        let text = line.text.trim();
        if let Some(rest) = text.strip_prefix("#define ") {
            let (name, value) = rest.trim().split_once(' ').ok_or_else(|| fail("#define NAME value".into()))?;
            let value = evaluate(value, names).map_err(fail)?;
            names.insert(name.to_string(), value);
        } else if let Some(rest) = text.strip_prefix("#for ") {
            let end = matching_end(lines, at).ok_or_else(|| fail("#for without #end".into()))?;
            let (name, range) = rest.split_once(" in ").ok_or_else(|| fail("#for NAME in a..b".into()))?;
            let (low, high) = range.split_once("..").ok_or_else(|| fail("#for NAME in a..b".into()))?;
            let low = evaluate(low, names).map_err(fail)?;
            let high = evaluate(high, names).map_err(fail)?;
            for value in low..high {
                let shadowed = names.insert(name.trim().to_string(), value);
                expand_lines(&lines[at + 1..end], names, element, out)?;
                match shadowed {
                    Some(old) => names.insert(name.trim().to_string(), old),
                    None => names.remove(name.trim()),
                };
            }
            at = end;
        } else if let Some(condition) = text.strip_prefix("#if ") {
            let end = matching_end(lines, at).ok_or_else(|| fail("#if without #end".into()))?;
            let middle = matching_else(&lines[..end], at).unwrap_or(end);
            let holds = evaluate(condition, names).map_err(fail)? != 0;
            let part = if holds { at + 1..middle } else { (middle + 1).min(end)..end };
            expand_lines(&lines[part], names, element, out)?;
            at = end;
        } else if let Some(rest) = text.strip_prefix("#in_place ") {
            let end = matching_end(lines, at).ok_or_else(|| fail("#in_place without #end".into()))?;
            let (input, output) = rest.split_once(" in ").ok_or_else(|| fail("#in_place INPUT in OUTPUT".into()))?;
            let mut function = String::new();
            expand_lines(&lines[at + 1..end], names, element, &mut function)?;
            let twin = in_place(&function, input.trim(), output.trim()).ok_or_else(|| fail("#in_place without a function".into()))?;
            out.push_str(&function);
            out.push_str(&format!("\n// The same where `{}` is the memory of `{}`.\n{twin}", output.trim(), input.trim()));
            at = end;
        } else if text.starts_with('#') {
            return Err(fail(format!("unknown or unmatched directive: {text}")));
        } else {
            out.push_str(&substitute(&line.text, names, element).map_err(fail)?);
            out.push('\n');
        }
        at += 1;
    }
    Ok(())
}

/// The `#else` of the `#if` at `start`, where there is one before its `#end`.
fn matching_else(lines: &[Line], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while at < lines.len() {
        let text = lines[at].text.trim();
        if text == "#else" {
            return Some(at);
        }
        at = if opens_block(text) { matching_end(lines, at)? + 1 } else { at + 1 };
    }
    None
}

fn opens_block(text: &str) -> bool {
    ["#for ", "#if ", "#in_place "].iter().any(|directive| text.starts_with(directive))
}

fn matching_end(lines: &[Line], start: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, line) in lines[start..].iter().enumerate() {
        let text = line.text.trim();
        if opens_block(text) {
            depth += 1;
        } else if text == "#end" {
            depth -= 1;
            if depth == 0 {
                return Some(start + offset);
            }
        }
    }
    None
}

/// The function in `text` under its name and `_in_place`, with `output` in the place of the variable `input`; its comments are
/// left out. `None` where no function begins there.
fn in_place(text: &str, input: &str, output: &str) -> Option<String> {
    let mut twin = String::new();
    let mut has_name = false;
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let line = match line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')) {
            Some((name, rest)) => {
                has_name = true;
                format!("fn {name}_in_place({rest}")
            }
            None => line.to_string(),
        };
        let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut rest = line.as_str();
        while let Some(start) = rest.find(is_of_word) {
            let end = rest[start..].find(|c| !is_of_word(c)).map_or(rest.len(), |length| start + length);
            let word = &rest[start..end];
            // Behind a dot it is a component.
            let is_variable = word == input && !rest[..start].ends_with('.');
            twin.push_str(&rest[..start]);
            twin.push_str(if is_variable { output } else { word });
            rest = &rest[end..];
        }
        twin.push_str(rest);
        twin.push('\n');
    }
    has_name.then_some(twin)
}

fn substitute(text: &str, names: &Names, element: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let end = rest[start..].find('}').ok_or("${ without }")? + start;
        out.push_str(&rest[..start]);
        match &rest[start + 2..end] {
            ELEMENT => out.push_str(element),
            expression => out.push_str(&evaluate(expression, names)?.to_string()),
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Evaluates an integer expression: sums of products of names, numbers and parentheses.
pub fn evaluate(text: &str, names: &Names) -> Result<i64, String> {
    let mut parser = Parser { rest: text.trim(), names };
    let value = parser.sum()?;
    if parser.rest.is_empty() { Ok(value) } else { Err(format!("cannot read `{}` in `{text}`", parser.rest)) }
}

struct Parser<'a> {
    rest: &'a str,
    names: &'a Names,
}

impl Parser<'_> {
    fn take(&mut self, symbol: char) -> bool {
        let taken = self.rest.strip_prefix(symbol);
        self.rest = taken.unwrap_or(self.rest).trim_start();
        taken.is_some()
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value += self.product()?;
            } else if self.take('-') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.atom()?;
        loop {
            if self.take('*') {
                value *= self.atom()?;
            } else if self.take('/') {
                value = value.checked_div(self.atom()?).ok_or("division by zero")?;
            } else if self.take('%') {
                value = value.checked_rem(self.atom()?).ok_or("division by zero")?;
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<i64, String> {
        if self.take('(') {
            let value = self.sum()?;
            return if self.take(')') { Ok(value) } else { Err("missing )".into()) };
        }
        let length = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest.trim_start();
        match word.parse() {
            Ok(number) => Ok(number),
            Err(_) => self.names.get(word).copied().ok_or_else(|| format!("unknown name `{word}`")),
        }
    }
}
