//! Who may import whom: the source is parsed and held to the table that `lib.rs` shows. What lies in crates of its own
//! (`src/core`, whose modules stand beside the others, and `src/tools`) the compiler holds apart as well.
//!
//! Looked at are all paths that begin with `crate`, `self`, `super` or the crate's name, in imports, in code and in what
//! macros are given, and some of the standard library's; code under `#[cfg(test)]` may import what it likes. A path within a
//! module is always allowed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::Visit;

/// A row: a module, or part of one, and what it may import: whole modules or parts of them.
struct Row {
    module: &'static str,
    targets: Vec<&'static str>,
    reach: Reach,
}

/// How far a row goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// `>`: to what the targets may import, too.
    On,
    /// `only`
    Here,
}

/// Where the table of `lib.rs` begins; it ends with its fence.
const TABLE_HEAD: &str = "//! # Who may import whom";
const FENCE: &str = "//! ```";

/// The table. What is allowed to a module is allowed to its parts. A part that has a row of its own is not meant by the name
/// of the whole.
fn table() -> &'static [Row] {
    static TABLE: OnceLock<Vec<Row>> = OnceLock::new();
    TABLE.get_or_init(|| rows(include_str!("../src/lib.rs")))
}

fn rows(map: &'static str) -> Vec<Row> {
    let lines = map.lines().skip_while(|line| *line != TABLE_HEAD).skip_while(|line| !line.starts_with(FENCE)).skip(1);
    lines.take_while(|line| !line.starts_with(FENCE)).map(row).collect()
}

fn row(line: &'static str) -> Row {
    let line = line.trim_start_matches("//!").trim();
    let (module, rest) = line.split_once(' ').unwrap_or_else(|| panic!("a row of the table: {line}"));
    let (reach, targets) = match rest.split_at_checked(rest.find(' ').unwrap_or(rest.len())) {
        Some((">", targets)) => (Reach::On, targets),
        Some(("only", targets)) => (Reach::Here, targets),
        _ => panic!("a row of the table: {line}"),
    };
    Row { module, targets: targets.split(',').map(str::trim).filter(|target| !target.is_empty()).collect(), reach }
}

/// What every module may import.
const EVERYONE: &[&str] = &["base", "config", "metrics", "executor"];

/// What paths call our crates, and the module here that each is.
const CRATES: [(&str, Option<&str>); 3] = [("ringlog", None), ("ringlog_core", None), ("ringlog_tools", Some("tools"))];

/// Modules of `src/core`, which every crate names as if they were its own.
const CORE: [&str; 7] = ["base", "config", "metrics", "executor", "client", "protocol", "record"];

/// What leaves may not touch: no files, sockets or clocks in pure modules.
const PURE: &[&str] = &["protocol", "record", "client"];
const IMPURE_PATHS: &[&str] =
    &["std::fs", "std::net", "std::os", "std::time::Instant", "std::time::SystemTime", "std::thread", "nix", "libc"];

/// Where threads are started, and where code may be unsafe.
const THREADS: &[&str] = &["broker", "shard", "worker", "metadata::thread", "admin", "tools::bench"];
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
                let is_of_core = segments.get(1).is_some_and(|module| CORE.contains(&module.as_str()));
                let is_tool = base.first().is_some_and(|module| module == "tools");
                base.truncate(usize::from(is_tool && !is_of_core));
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            name if CRATES.iter().any(|(known, _)| *known == name) => {
                let place = CRATES.iter().filter(|(known, _)| *known == name).filter_map(|(_, place)| *place);
                base = place.map(str::to_owned).collect();
                rest = &rest[1..];
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

impl Collector<'_> {
    /// What a macro is given: paths, also those of imports, and the word that makes code unsafe.
    fn tokens(&mut self, prefix: &[String], mut cursor: Cursor<'_>) {
        while !cursor.eof() {
            if let Some((ident, rest)) = cursor.ident() {
                let mut path = [prefix, &[ident.to_string()]].concat();
                cursor = rest;
                while let Some((ident, rest)) = colons(cursor).and_then(Cursor::ident) {
                    path.push(ident.to_string());
                    cursor = rest;
                }
                if let Some((group, _, _, rest)) = colons(cursor).and_then(Cursor::any_group) {
                    self.tokens(&path, group);
                    cursor = rest;
                } else if path == ["unsafe"] {
                    self.is_unsafe();
                } else if path.len() > 1 {
                    self.name(path);
                }
            } else if let Some((group, _, _, rest)) = cursor.any_group() {
                self.tokens(&[], group);
                cursor = rest;
            } else if let Some((_, rest)) = cursor.token_tree() {
                cursor = rest;
            }
        }
    }

    fn is_unsafe(&mut self) {
        self.found.unsafe_modules.insert(self.module.join("::"));
    }
}

/// What follows `::`.
fn colons(cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    let (first, rest) = cursor.punct()?;
    let (second, rest) = rest.punct()?;
    (first.as_char() == ':' && second.as_char() == ':').then_some(rest)
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
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
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

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test_only(&local.attrs) {
            syn::visit::visit_local(self, local);
        }
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        let tokens = TokenBuffer::new2(invoked.tokens.clone());
        self.tokens(&[], tokens.begin());
        syn::visit::visit_macro(self, invoked);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.is_unsafe();
        syn::visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.is_unsafe();
        }
        syn::visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if item.unsafety.is_some() {
            self.is_unsafe();
        }
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if matches!(signature.safety, syn::Safety::Unsafe(_)) {
            self.is_unsafe();
        }
        syn::visit::visit_signature(self, signature);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.is_unsafe();
        syn::visit::visit_item_foreign_mod(self, item);
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
    let mut open = Vec::new();
    for row in table().iter().filter(|row| is_within(module, row.module)) {
        match row.reach {
            Reach::On => open.extend(&row.targets),
            Reach::Here => reached.extend(&row.targets),
        }
    }
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(table().iter().filter(|row| row.module == next).flat_map(|row| &row.targets));
        }
    }
    reached
}

/// Whether `target` means `path`: it does not where the path lies in a part that has a row of its own.
fn means(target: &str, path: &str) -> bool {
    let is_apart = |name: &str| name != target && is_within(name, target) && is_within(path, name);
    is_within(path, target) && !table().iter().any(|row| is_apart(row.module))
}

fn violations(found: &Found) -> Vec<String> {
    let top = |path: &str| path.split("::").next().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    for import in found.imports.iter().filter(|import| !found.is_test(&import.from)) {
        let module = top(&import.from);
        let known = table().iter().any(|row| row.module == top(&import.path));
        let may = is_within(&import.path, &module)
            || !known && table().iter().any(|row| row.module == module)
            || allowed(&import.from).iter().any(|target| means(target, &import.path));
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
                walk(&path, if inner == "core" { "" } else { &inner }, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let is_root = stem == "mod" || module == "tools" && stem == "lib";
                files.push((if is_root { module.to_owned() } else { inner }, path));
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
        modules.iter().filter(|module| *module != "lib" && !table().iter().any(|row| row.module == *module)).collect();
    assert!(missing.is_empty(), "say in the table of lib.rs what these may import: {missing:?}");
    let rows = table().iter().map(|row| row.module.split("::").next().unwrap_or_default());
    let gone: Vec<_> = rows.filter(|module| !modules.contains(*module)).collect();
    assert!(gone.is_empty(), "the table of lib.rs speaks of what is not there: {gone:?}");
}

#[test]
fn a_planted_violation_is_caught_in_whatever_form() {
    let caught = ["net::reply may not import storage::log::Log"];
    assert_eq!(violations_of("net::reply", "use crate::storage::log::Log;"), caught);
    assert_eq!(violations_of("net::reply", "use super::super::storage::{log::Log};"), caught);
    assert_eq!(violations_of("net::reply", "fn f() { crate::storage::log::Log(1); }"), caught);
    let of_a_tool = ["net::reply may not import tools::table::Table"];
    assert_eq!(violations_of("net::reply", "use ringlog_tools::table::Table;"), of_a_tool);
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
}

#[test]
fn whoever_may_import_a_module_may_not_for_that_import_a_part_that_has_a_row_of_its_own() {
    let import = "use crate::platform::linux::LinuxPlatform;";
    let caught = ["storage::log may not import platform::linux::LinuxPlatform"];
    assert_eq!(violations_of("storage::log", import), caught);
    assert!(violations_of("storage::log", "use crate::platform::Disk;").is_empty());
    assert!(violations_of("broker", import).is_empty());
    assert!(violations_of("platform::linux::disk", "use crate::platform::linux::held::Held;").is_empty());
}

#[test]
fn what_starts_the_process_is_held_to_its_row_though_it_calls_the_crate_by_its_name() {
    let caught = ["main may not import storage::log::Log"];
    assert_eq!(violations_of("main", "use ringlog::storage::log::Log;"), caught);
    assert_eq!(violations_of("main", "fn main() { ringlog::storage::log::Log(1); }"), caught);
    assert!(violations_of("main", "use ringlog::broker;").is_empty());
}

#[test]
fn a_planted_violation_in_what_a_macro_is_given_or_makes_is_caught() {
    let caught = ["net::reply may not import storage::log::Log"];
    assert_eq!(violations_of("net::reply", "fn f() { assert!(g(crate::storage::log::Log)); }"), caught);
    assert_eq!(violations_of("net::reply", "macro_rules! m { () => { $crate::storage::log::Log }; }"), caught);
    assert_eq!(violations_of("net::reply", "m! { use crate::storage::{log::Log}; }").len(), 1);
    assert_eq!(violations_of("record", "thread_local! { static F: std::fs::File = f(); }").len(), 1);
    assert_eq!(violations_of("net::reply", "m! { unsafe { g() } }"), ["net::reply may not be unsafe"]);
    assert!(violations_of("net::reply", "fn f() { panic!(\"crate::storage::log::Log, unsafe\"); }").is_empty());
}

#[test]
fn code_that_is_unsafe_in_whatever_form_is_caught() {
    let caught = ["net::reply may not be unsafe"];
    for source in [
        "fn f() { unsafe { g() } }",
        "unsafe impl Send for T {}",
        "unsafe fn f() {}",
        "impl T { unsafe fn f(&self) {} }",
        "trait T { unsafe fn f(&self); }",
        "unsafe trait T {}",
        "unsafe extern \"C\" { fn f(); }",
    ] {
        assert_eq!(violations_of("net::reply", source), caught, "{source}");
        assert!(violations_of("uring::op", source).is_empty(), "{source}");
    }
}

#[test]
fn what_is_allowed_passes() {
    assert!(violations_of("net::reply", "use crate::protocol::frame::frame_length; use super::budget::B;").is_empty());
    assert!(violations_of("tools::topic", "use crate::admin::Asked; use crate::client::Request;").is_empty());
    assert!(violations_of("storage::log", "use crate::{base::ids::Offset, record::batch};").is_empty());
    assert!(violations_of("net::reply", "#[cfg(test)] mod tests { use crate::storage::log::Log; }").is_empty());
}
