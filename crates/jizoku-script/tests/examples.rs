//! The examples and the pages of docs are right: scripts pass the checker and are formatted, the
//! list of functions is the table's.

use std::fs;
use std::path::{Path, PathBuf};

use jizoku_script::check::check;
use jizoku_script::format::format;
use jizoku_script::functions::reference;
use jizoku_script::offer::Offer;
use jizoku_script::permission::Permissions;
use jizoku_script::problem::Report;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn examples_pass_and_are_formatted() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("examples/scripts")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let offer = Offer::unknown().for_role("admin", Permissions::ALL);
        let name = path.display().to_string();
        let problems = check(&text, &offer, None).problems;
        assert!(problems.is_empty(), "{}", Report::new(&name, &text, &problems));
        assert_eq!(format(&text).unwrap(), text, "{name}");
        count += 1;
    }
    assert!(count >= 3);
}

/// Scripts in the docs, fenced as `jz`, pass as well.
#[test]
fn scripts_in_the_docs_pass() {
    let mut count = 0;
    for page in ["docs/concepts/script.md", "docs/script/README.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for block in text.split("```jz\n").skip(1) {
            let script = block.split("```").next().unwrap();
            let problems = check(script, &Offer::unknown(), None).problems;
            assert!(problems.is_empty(), "{}", Report::new(page, script, &problems));
            assert_eq!(format(script).unwrap(), script, "{page}");
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

/// With JIZOKU_BLESS set, the page is written.
#[test]
fn the_list_of_functions_is_the_tables() {
    let path = root().join("docs/script/functions.md");
    if std::env::var_os("JIZOKU_BLESS").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(page == reference(), "run: JIZOKU_BLESS=1 cargo test --release -p jizoku-script");
}
