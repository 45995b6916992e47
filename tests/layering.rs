//! Who may import whom: the source is parsed and held to one table.
//!
//! Looked at are all paths that begin with `crate`, `self` or `super`, in imports and in code, and some of the standard
//! library's; code under `#[cfg(test)]` may import what it likes. A path within a module is always allowed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Each module, or part of one, and what it may import: whole modules or parts of them. Who may import a whole module may
/// also import what that one may ("everything further right"); what is allowed to a module is allowed to its parts.
const TABLE: &[(&str, &[&str])] = &[
    ("main", &["broker", "cli"]),
    ("cli", &["client"]),
    ("cli::log", &["storage"]),
    ("cli::kafka::dump_log", &["storage"]),
    ("client", &["protocol", "record"]),
    ("client::connection", &["platform"]),
    ("broker", &["shard", "controller", "admin", "worker", "platform::linux", "uring", "cli::banner"]),
    ("shard", &["handlers", "local", "net", "worker"]),
    ("shard::run", &["platform::linux", "uring"]),
    ("handlers", &["local", "protocol", "net::connection", "net::reply"]),
    ("replication", &["local"]),
    ("local", &["partition", "protocol"]),
    ("local", &["metadata::image", "metadata::node", "metadata::proposal", "metadata::thread"]),
    ("partition", &["storage"]),
    ("storage", &["record", "platform"]),
    ("net", &["platform", "protocol::frame"]),
    ("net::listener", &["platform::linux", "uring"]),
    ("controller", &["metadata"]),
    ("controller::node", &["platform"]),
    ("admin", &["protocol::api_key", "protocol::error_code"]),
    ("metadata", &[]),
    ("platform", &[]),
    ("platform::linux", &["uring", "worker"]),
    ("worker", &["platform", "sys"]),
    ("uring", &["sys", "platform::RECEIVE_CHUNK_BYTES_MAX"]),
    ("sim", &["platform"]),
    ("executor", &[]),
    ("record", &[]),
    ("protocol", &[]),
    ("sys", &[]),
    ("config", &[]),
    ("metrics", &[]),
    ("base", &[]),
];

/// What every module may import.
const EVERYONE: &[&str] = &["base", "config", "metrics", "executor"];

/// What leaves may not touch: no files, sockets or clocks in pure modules.
const PURE: &[&str] = &["protocol", "record", "client"];
const IMPURE_PATHS: &[&str] =
    &["std::fs", "std::net", "std::os", "std::time::Instant", "std::time::SystemTime", "std::thread", "nix", "libc"];

/// Where threads are started, and where code may be unsafe.
const THREADS: &[&str] = &["broker", "shard", "worker", "metadata::thread", "admin", "cli::bench"];
const UNSAFE: &[&str] = &["uring", "sys"];

/// One path, absolute, and the module that names it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    path: String,
}

#[derive(Default)]
struct Found {
    /// Paths within the crate, without `crate`.
    imports: BTreeSet<Import>,
    /// Paths of other crates.
    foreign: BTreeSet<Import>,
    unsafe_modules: BTreeSet<String>,
    /// Modules that exist in tests only.
    test_modules: BTreeSet<String>,
}

impl Found {
    fn is_test(&self, module: &str) -> bool {
        self.test_modules.iter().any(|test| is_within(module, test))
    }
}

/// Collects what one file names.
struct Collector<'a> {
    /// Where we are: `net::connection`.
    module: Vec<String>,
    found: &'a mut Found,
}

impl Collector<'_> {
    fn name(&mut self, segments: Vec<String>) {
        let Some(first) = segments.first() else { return };
        let from = self.module.join("::");
        let mut base = self.module.clone();
        let mut rest = &segments[..];
        match first.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            _ => {
                self.found.foreign.insert(Import { from, path: segments.join("::") });
                return;
            }
        }
        base.extend(rest.iter().cloned());
        if !base.is_empty() {
            self.found.imports.insert(Import { from, path: base.join("::") });
        }
    }

    fn use_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(prefix, tree)),
            syn::UseTree::Name(name) if name.ident == "self" => self.name(prefix.to_vec()),
            syn::UseTree::Name(name) => self.name(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.name(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.name(prefix.to_vec()),
        }
    }
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || condition.contains("any (test") || condition.contains("any(test")
        }
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if !is_test_only(attributes) {
            syn::visit::visit_item(self, item);
        } else if let syn::Item::Mod(module) = item {
            self.found.test_modules.insert([&self.module[..], &[module.ident.to_string()]].concat().join("::"));
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.name(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.found.unsafe_modules.insert(self.module.join("::"));
        syn::visit::visit_expr_unsafe(self, block);
    }
}

fn collect(module: &str, source: &str, found: &mut Found) -> Result<(), syn::Error> {
    let file = syn::parse_file(source)?;
    let module = module.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
    Collector { module, found }.visit_file(&file);
    Ok(())
}

/// Whether `path` is `prefix` or lies below it.
fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// All that a module may import, "further right" included.
fn allowed(module: &str) -> BTreeSet<&'static str> {
    let mut reached: BTreeSet<&'static str> = EVERYONE.iter().copied().collect();
    let targets_of = |entry: &(&'static str, &'static [&'static str])| entry.1.iter().copied();
    let mut open: Vec<&'static str> =
        TABLE.iter().filter(|entry| is_within(module, entry.0)).flat_map(targets_of).collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(TABLE.iter().filter(|entry| entry.0 == next).flat_map(targets_of));
        }
    }
    reached
}

fn violations(found: &Found) -> Vec<String> {
    let top = |path: &str| path.split("::").next().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    for import in found.imports.iter().filter(|import| !found.is_test(&import.from)) {
        let module = top(&import.from);
        let known = TABLE.iter().any(|(name, _)| *name == top(&import.path));
        let may = is_within(&import.path, &module)
            || !known && TABLE.iter().any(|(name, _)| *name == module)
            || allowed(&import.from).iter().any(|target| is_within(&import.path, target));
        if !may {
            wrong.push(format!("{} may not import {}", import.from, import.path));
        }
    }
    for import in found.foreign.iter().filter(|import| !found.is_test(&import.from)) {
        let module = top(&import.from);
        if PURE.contains(&module.as_str()) && IMPURE_PATHS.iter().any(|path| is_within(&import.path, path)) {
            wrong.push(format!("{} is pure and may not use {}", import.from, import.path));
        }
        let starts_threads = ["thread::spawn", "thread::Builder"].iter().any(|path| import.path.contains(path));
        if starts_threads && !THREADS.iter().any(|place| is_within(&import.from, place)) {
            wrong.push(format!("{} may not start threads", import.from));
        }
    }
    let wild =
        found.unsafe_modules.iter().filter(|module| !UNSAFE.contains(&top(module).as_str()) && !found.is_test(module));
    wrong.extend(wild.map(|module| format!("{module} may not be unsafe")));
    wrong
}

/// Every source file but those of tests, with its module's path.
fn sources() -> Vec<(String, PathBuf)> {
    fn walk(directory: &Path, module: &str, files: &mut Vec<(String, PathBuf)>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(directory).expect("a source directory").map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let inner = if module.is_empty() { stem.clone() } else { format!("{module}::{stem}") };
            if stem == "tests" {
                continue;
            }
            if path.is_dir() {
                walk(&path, &inner, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((if stem == "mod" { module.to_owned() } else { inner }, path));
            }
        }
    }
    let mut files = Vec::new();
    walk(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), "", &mut files);
    files
}

fn violations_of(module: &str, source: &str) -> Vec<String> {
    let mut found = Found::default();
    collect(module, source, &mut found).expect("the planted source parses");
    violations(&found)
}

#[test]
fn every_module_imports_only_what_the_table_allows() {
    let mut found = Found::default();
    let files = sources();
    assert!(files.len() > 40, "the source is where it was: {}", files.len());
    for (module, path) in files.iter().filter(|(module, _)| module != "lib") {
        let source = fs::read_to_string(path).expect("a readable source file");
        collect(module, &source, &mut found).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let wrong = violations(&found);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_crate_stands_in_the_table() {
    let modules: BTreeSet<String> =
        sources().into_iter().map(|(module, _)| module.split("::").next().unwrap_or_default().to_owned()).collect();
    let missing: Vec<_> =
        modules.iter().filter(|module| *module != "lib" && !TABLE.iter().any(|(name, _)| name == module)).collect();
    assert!(missing.is_empty(), "say in TABLE what these may import: {missing:?}");
}

#[test]
fn a_planted_violation_is_caught_in_whatever_form() {
    let caught = ["net::reply may not import storage::log::Log"];
    assert_eq!(violations_of("net::reply", "use crate::storage::log::Log;"), caught);
    assert_eq!(violations_of("net::reply", "use super::super::storage::{log::Log};"), caught);
    assert_eq!(violations_of("net::reply", "fn f() { crate::storage::log::Log(1); }"), caught);
    assert_eq!(violations_of("net::reply", "mod inner { use super::super::super::storage::log::Log; }").len(), 1);
    assert_eq!(
        violations_of("record::batch", "use std::{fs::File, time::Instant};"),
        [
            "record::batch is pure and may not use std::fs::File",
            "record::batch is pure and may not use std::time::Instant"
        ]
    );
    assert_eq!(
        violations_of("net::reply", "fn f() { std::thread::spawn(|| ()); }"),
        ["net::reply may not start threads"]
    );
    assert_eq!(violations_of("net::reply", "fn f() { unsafe { g() } }"), ["net::reply may not be unsafe"]);
}

#[test]
fn what_is_allowed_passes() {
    assert!(violations_of("net::reply", "use crate::protocol::frame::frame_length; use super::budget::B;").is_empty());
    assert!(violations_of("storage::log", "use crate::{base::ids::Offset, record::batch};").is_empty());
    assert!(violations_of("net::reply", "#[cfg(test)] mod tests { use crate::storage::log::Log; }").is_empty());
}
