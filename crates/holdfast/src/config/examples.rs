//! The examples of the manual are files that the program takes.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::tests::{parse, repository};
use std::fs;
use std::path::PathBuf;

/// The examples of a page, each with the number of its first line.
fn examples(page: &str) -> Vec<(usize, String)> {
    let (mut found, mut open): (Vec<(usize, String)>, bool) = (Vec::new(), false);
    for (number, line) in page.lines().enumerate() {
        match line.trim() {
            "```toml" => {
                found.push((number + 2, String::new()));
                open = true;
            }
            "```" => open = false,
            _ if open => found.last_mut().unwrap().1.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    found
}

/// An example with the VM and the application that it speaks of, where it shows a part of a file only.
fn whole(example: &str) -> String {
    let mut text = example.to_owned();
    let mut vms: std::collections::BTreeSet<&str> =
        example.lines().filter_map(|line| line.strip_prefix("[vm.")?.split(['.', ']']).next()).collect();
    if vms.is_empty() {
        vms.insert("orders");
    }
    for vm in vms {
        if !example.contains(&format!("[vm.{vm}]")) {
            text.push_str(&format!("\n[vm.{vm}]\ndisk = \"/srv/vm/{vm}.qcow2\"\n"));
        }
        let app = format!("[vm.{vm}.app.postgres]");
        if !example.contains(&app) && (example.contains("app = \"postgres\"") || example.contains("query = "))
        {
            text.push_str(&format!("\n{app}\nprobe = \"postgres://probe@guest/{vm}\"\n"));
        }
    }
    text
}

#[test]
fn every_example_of_the_manual_is_accepted() {
    let mut pages: Vec<PathBuf> = ["README.md", "README.zh-CN.md"].map(|name| repository().join(name)).into();
    let mut folders = vec![repository().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(kind) if kind == "md" => pages.push(path),
                Some(_) | None => {}
            }
        }
    }
    let mut seen = 0;
    for page in pages {
        for (line, example) in examples(&fs::read_to_string(&page).unwrap()) {
            let refused = parse(&whole(&example)).err().map(|errors| errors.to_string());
            assert_eq!(refused, None, "{}:{line}", page.display());
            seen += 1;
        }
    }
    assert!(seen >= 15, "only {seen} examples");
}
