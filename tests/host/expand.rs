//! The shader preprocessor of the build script.

#[path = "../../build/expand.rs"]
#[allow(dead_code)]
mod subject;

use std::collections::BTreeMap;
use std::fs;
use subject::{evaluate, expand_file};

/// Expands `main.wgsl` of a folder with these files; the folder's path is left out of messages.
fn expand(files: &[(&str, &str)]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let prefix = format!("{}{}", folder.path().display(), std::path::MAIN_SEPARATOR);
    let expanded = expand_file(folder.path(), &folder.path().join("main.wgsl"));
    expanded.map(|expanded| expanded.single).map_err(|message| message.replace(&prefix, ""))
}

fn one(text: &str) -> Result<String, String> {
    expand(&[("main.wgsl", text)])
}

#[test]
fn plain_text_passes_unchanged() {
    assert_eq!(one("// a $ and a { stay\nfn f() {}\n").unwrap(), "// a $ and a { stay\nfn f() {}\n");
    assert_eq!(one("").unwrap(), "");
}

#[test]
fn expressions_follow_arithmetic() {
    let names = BTreeMap::from([("a".to_string(), 7), ("tile_size".to_string(), 4)]);
    let cases = [
        ("3", 3),
        ("a", 7),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("a - 2 - 1", 4),
        ("24 / 4 / 2", 3),
        ("a % tile_size", 3),
        ("a*tile_size+(a-1)/2", 31),
        ("((a))", 7),
        ("2 - 5", -3),
    ];
    for (text, value) in cases {
        assert_eq!(evaluate(text, &names), Ok(value), "{text}");
    }
    for text in ["", "b", "1 +", "(1", "1)", "1 2", "1 / 0", "1 % (a - 7)", "1 & 2"] {
        assert!(evaluate(text, &names).is_err(), "{text}");
    }
}

#[test]
fn names_are_defined_in_terms_of_earlier_ones() {
    let text = "#define ROWS 4\n#define SIZE ROWS * (ROWS + 1)\nvar<workgroup> t: array<f32, ${SIZE}>; // ${ROWS}x${ROWS + 1}\n";
    assert_eq!(one(text).unwrap(), "var<workgroup> t: array<f32, 20>; // 4x5\n");
}

#[test]
fn loops_repeat_nest_and_shadow() {
    let text = "#define N 2\n#for i in 0..N\na${i}\n  #for j in i..N + 1\n  b${i}${j}\n  #end\n#end\n#for N in 5..6\nc${N}\n#end\nd${N}\n";
    assert_eq!(one(text).unwrap(), "a0\n  b00\n  b01\n  b02\na1\n  b11\n  b12\nc5\nd2\n");
    assert_eq!(one("#for i in 3..3\nnever\n#end\nx\n").unwrap(), "x\n");
    assert!(one("#for i in 0..1\n#end\n${i}\n").is_err(), "the name of a loop ends with it");
}

#[test]
fn imports_come_once_and_from_the_root() {
    let files = [
        ("main.wgsl", "#import \"shared/a.wgsl\"\n#import \"shared/b.wgsl\"\nmain ${A}\n"),
        ("shared/a.wgsl", "#define A 1\na\n"),
        ("shared/b.wgsl", "#import \"shared/a.wgsl\"\nb ${A}\n"),
    ];
    assert_eq!(expand(&files).unwrap(), "a\nb 1\nmain 1\n");
    // A circle ends, because each file comes once.
    let circle =
        [("main.wgsl", "#import \"a.wgsl\"\nmain\n"), ("a.wgsl", "#import \"b.wgsl\"\na\n"), ("b.wgsl", "#import \"a.wgsl\"\nb\n")];
    assert_eq!(expand(&circle).unwrap(), "b\na\nmain\n");
}

#[test]
fn conditions_choose_lines() {
    let text =
        "#define A 2\n#if A - 2\nx\n#else\n#for i in 0..2\n#if i\none\n#else\nnone\n#end\n#end\n#end\n#if A\n#define B A + 1\n#end\n${B}\n";
    assert_eq!(one(text).unwrap(), "none\none\n3\n");
    assert_eq!(one("#if 0\n${unknown}\n#end\nx\n").unwrap(), "x\n", "what is left out is not read");
}

#[test]
fn errors_name_the_file_and_line() {
    for (text, start) in [
        ("x\n${y}\n", "main.wgsl:2: unknown name `y`"),
        ("${1\n", "main.wgsl:1: ${ without }"),
        ("x\n\n#for i in 0..2\n", "main.wgsl:3: #for without #end"),
        ("#for i 0..2\n#end\n", "main.wgsl:1: #for NAME in a..b"),
        ("#for i in 2\n#end\n", "main.wgsl:1: #for NAME in a..b"),
        ("#end\n", "main.wgsl:1: unknown or unmatched directive: #end"),
        ("#if x\n", "main.wgsl:1: #if without #end"),
        ("#if x\n#end\n", "main.wgsl:1: unknown name `x`"),
        ("#else\n", "main.wgsl:1: unknown or unmatched directive: #else"),
        ("#define X\n", "main.wgsl:1: #define NAME value"),
        ("#define X 1 / 0\n", "main.wgsl:1: division by zero"),
        ("#import \"gone.wgsl\"\n", "main.wgsl:1: gone.wgsl: "),
    ] {
        let message = one(text).unwrap_err();
        assert!(message.starts_with(start), "{text:?}: {message}");
    }
    let nested = expand(&[("main.wgsl", "#import \"a.wgsl\"\n"), ("a.wgsl", "ok\n${z}\n")]).unwrap_err();
    assert!(nested.starts_with("a.wgsl:2: unknown name `z`"), "{nested}");
}

#[test]
fn functions_get_a_twin_that_works_in_place() {
    let text = "#define N 2\n#in_place x in y\n// Doubles.\n@compute\nfn forward(at: vec3<u32>) {\n#for j in 0..N\n    y[at.x + ${j}u] = 2 * x[at.x + ${j}u];\n#end\n}\n#end\nrest\n";
    let expected = "// Doubles.\n@compute\nfn forward(at: vec3<u32>) {\n    y[at.x + 0u] = 2 * x[at.x + 0u];\n    y[at.x + 1u] = 2 * x[at.x + 1u];\n}\n\n\
        // The same where `y` is the memory of `x`.\n@compute\nfn forward_in_place(at: vec3<u32>) {\n    y[at.x + 0u] = 2 * y[at.x + 0u];\n    y[at.x + 1u] = 2 * y[at.x + 1u];\n}\nrest\n";
    assert_eq!(one(text).unwrap(), expected);
    for (text, start) in [
        ("#in_place x in y\nfn f() {}\n", "main.wgsl:1: #in_place without #end"),
        ("#in_place x\nfn f() {}\n#end\n", "main.wgsl:1: #in_place INPUT in OUTPUT"),
        ("#in_place x in y\nlet x = 1;\n#end\n", "main.wgsl:1: #in_place without a function"),
    ] {
        assert!(one(text).unwrap_err().starts_with(start), "{text}");
    }
}

#[test]
fn shaders_that_store_activations_come_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.wgsl");
    let both = |text: &str| {
        fs::write(&path, text).unwrap();
        let expanded = expand_file(folder.path(), &path).unwrap();
        (expanded.single, expanded.half)
    };
    let (single, half) = both("// What it does.\n// More.\nvar<storage> x: array<vec4<${ELEMENT}>>; // ${2 * 2}\n");
    assert_eq!(single, "// What it does.\n// More.\nvar<storage> x: array<vec4<f32>>; // 4\n");
    assert_eq!(half.unwrap(), "// What it does.\n// More.\nenable f16;\nvar<storage> x: array<vec4<f16>>; // 4\n");
    assert_eq!(both("x\n").1, None);
}

#[test]
fn every_shader_expands_to_what_the_program_holds() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    for (module, source) in super::shaders::modules() {
        let file = module.strip_suffix("_f16").unwrap_or(module);
        let expanded = expand_file(&root, &root.join(format!("{file}.wgsl"))).unwrap();
        let text = if file == module { expanded.single } else { expanded.half.unwrap() };
        assert!(text == source, "{module}");
        assert!(!source.contains("${") && !source.contains("#import"), "{module}");
    }
}
