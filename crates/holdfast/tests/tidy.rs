//! The house rules that a compiler does not check: sizes, borders, what a module is for, nothing left for later.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != ".git") {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root().join("crates"), ".rs", &mut found);
    found.sort();
    let in_src = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "src");
    found.into_iter().filter(in_src).map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// The lines of a file, numbered from 1, without the items that only its tests have.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
    let mut code = Vec::new();
    while let Some((at, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let mut item = Item::new(indent(line));
            while lines.next_if(|_| !item.is_over).is_some_and(|(_, line)| item.take(line)) {}
        } else {
            code.push((at, line));
        }
    }
    code
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// One item, line by line, as `cargo fmt` lays it out: it is over with the first line that is no deeper than its
/// attributes and ends it.
struct Item {
    indent: usize,
    in_attribute: bool,
    has_begun: bool,
    is_over: bool,
}

impl Item {
    const fn new(indent: usize) -> Self {
        Self { indent, in_attribute: false, has_begun: false, is_over: false }
    }

    /// Takes its next line; `false` once it is over.
    fn take(&mut self, line: &str) -> bool {
        let words = line.trim();
        let said = words.starts_with("//") || words.starts_with("#[") || self.in_attribute;
        if !self.has_begun && said {
            self.in_attribute = !words.starts_with("//") && !words.ends_with(']');
            return true;
        }
        let ends = if self.has_begun {
            indent(line) == self.indent && (words.starts_with('}') || words.ends_with(';'))
        } else {
            words.ends_with([';', ',', '}'])
        };
        self.has_begun = true;
        self.is_over = ends;
        !ends
    }
}

/// The same, without what is only said.
fn code_of(text: &str) -> impl Iterator<Item = &str> {
    code(text).into_iter().map(|(_, line)| line).filter(|line| !line.trim_start().starts_with("//"))
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn a_file_fits_a_head() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (short(path), code(text).len()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines before its tests"))
        .collect();
    assert!(long.is_empty(), "at most {FILE_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn a_function_fits_a_screen() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = code(&text);
        for (start, (at, line)) in lines.iter().enumerate() {
            let head = line.trim_start();
            let words: Vec<&str> = head.split_whitespace().take(6).collect();
            if head.starts_with("//") || !words.contains(&"fn") || head.ends_with(';') {
                continue;
            }
            let closing = format!("{}}}", " ".repeat(indent(line)));
            let length =
                lines[start..].iter().position(|(_, line)| *line == closing).map_or(1, |end| end + 1);
            if length > FUNCTION_LINES {
                long.push(format!("{}:{at}: {length} lines", short(&path)));
            }
        }
    }
    assert!(long.is_empty(), "at most {FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn only_what_tests_alone_have_is_left_out() {
    let text = "\
mod a;
#[cfg(test)]
mod tests;
mod b;
#[cfg(test)]
#[expect(
    dead_code,
    reason = \"tests\"
)]
pub use c::{
    D,
};

impl E {
    /// What only tests ask.
    #[cfg(test)]
    #[must_use]
    pub fn f(
        &self,
    ) -> bool {
        if self.g {
        }
        true
    }
    h: u8,
    #[cfg(test)]
    // Why.
    i: u8,
    #[cfg(test)]
    const fn j() {}
}

#[cfg(test)]
mod tests {
    fn k() {
    }
}
fn l() {}
";
    let left: Vec<String> = code(text).iter().map(|(at, line)| format!("{at} {}", line.trim())).collect();
    let expected = [
        "1 mod a;",
        "4 mod b;",
        "13 ",
        "14 impl E {",
        "15 /// What only tests ask.",
        "25 h: u8,",
        "31 }",
        "32 ",
        "38 fn l() {}",
    ];
    assert_eq!(left, expected);
}

#[test]
fn dependencies_point_one_way() {
    let allowed: [(&str, &[&str]); 11] = [
        ("witness", &[]),
        ("retain", &[]),
        ("fuzz", &[]),
        ("bucket", &[]),
        ("core", &["holdfast-retain", "holdfast-witness"]),
        ("backup", &["holdfast-retain"]),
        ("logs", &[]),
        ("nbd", &[]),
        ("s3", &["holdfast-backup"]),
        ("drivers", &["holdfast-core", "holdfast-witness"]),
        ("sim", &["holdfast-core", "holdfast-drivers", "holdfast-witness"]),
    ];
    for (name, may) in allowed {
        let text = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let ours = text.lines().filter(|line| line.starts_with("holdfast"));
        for line in ours {
            let used = line.split([' ', '=', '.']).next().unwrap();
            let is_for_tests = ["holdfast-fuzz", "holdfast-bucket"].contains(&used);
            assert!(may.contains(&used) || is_for_tests, "crates/{name} may not use {used}");
        }
    }
    for folder in fs::read_dir(root().join("crates")).unwrap() {
        let text = fs::read_to_string(folder.unwrap().path().join("Cargo.toml")).unwrap();
        let code = text.split("[dev-dependencies]").next().unwrap();
        let for_tests = ["holdfast-fuzz =", "holdfast-bucket ="];
        assert!(!for_tests.iter().any(|name| code.contains(name)), "that is for tests: {code}");
    }
}

/// The program itself may not: a death is stated by who saw it, a lease given by who keeps them (I1, I2).
#[test]
fn only_drivers_bear_witness_and_only_lease_stores_give_leases() {
    let text = fs::read_to_string(root().join("crates/holdfast/Cargo.toml")).unwrap();
    let (code, tests) = text.split_once("[dev-dependencies]").unwrap();
    assert!(!code.contains("holdfast-witness") && tests.contains("holdfast-witness"));
    let may = |path: &str, folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let core = "crates/core/src/lease.rs";
    for (path, text) in sources() {
        let path = short(&path);
        if path.ends_with("tests.rs") {
            continue;
        }
        let uses = |word: &str| code_of(&text).any(|line| line.contains(word));
        let sees = may(&path, &["crates/witness/", "crates/drivers/", "crates/sim/", core]);
        assert!(sees || !uses("Eyewitness"), "{path} has seen nothing");
        let keeps =
            ["crates/holdfast/src/lease/", "crates/sim/src/lease.rs", "crates/drivers/src/contract.rs", core];
        let gives = uses("Lease::after(") || uses("Lease::adopting(");
        assert!(may(&path, &keeps) || !gives, "{path} keeps no leases");
    }
}

#[test]
fn the_core_reads_no_clock_no_file_and_no_chance() {
    let forbidden =
        ["std::fs", "std::net", "std::env", "SystemTime", "Instant::now", "std::thread", "tokio", "HashMap"];
    for (path, text) in sources() {
        let path = short(&path);
        if !path.starts_with("crates/core/src") {
            continue;
        }
        for word in forbidden {
            let used = code_of(&text).any(|line| line.contains(word));
            assert!(!used, "{path} uses {word}");
        }
    }
}

/// A guest's agent tells addresses; whoever could dial one lives elsewhere (A16).
#[test]
fn the_drivers_dial_nothing_but_sockets_of_this_host() {
    let forbidden = ["TcpStream", "TcpSocket", "UdpSocket", "ToSocketAddrs", "lookup_host", "net::connect"];
    for (path, text) in sources() {
        let path = short(&path);
        for word in forbidden.iter().filter(|_| path.starts_with("crates/drivers/src")) {
            assert!(!code_of(&text).any(|line| line.contains(word)), "{path} uses {word}");
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"];
    for (path, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{} has {word}", short(&path));
        }
    }
}

/// What is expected and does not come is told by the compiler; what is allowed is forgotten.
#[test]
fn exceptions_are_expected_and_not_allowed() {
    for (path, text) in sources() {
        let allows = |line: &str| line.contains("#[allow(") || line.contains("#![allow(");
        assert!(!code_of(&text).any(allows), "{} allows, where it should expect", short(&path));
    }
}

#[test]
fn every_module_opens_with_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not say what it is for", short(&path));
    }
}
