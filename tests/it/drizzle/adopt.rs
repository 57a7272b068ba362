//! `docs/adopt.md`: what ran before premigrate, and then premigrate, in the example.

use std::collections::BTreeMap;
use std::fs;

use super::example::example;
use crate::docs::{blocks, project};
use crate::harness::needs;

const GUIDE: &str = "docs/adopt.md";

#[test]
fn the_blocks_of_the_guide_for_adopters_run_section_by_section() {
    needs("Node");
    let mut sections = BTreeMap::new();
    for block in blocks(GUIDE) {
        let example = sections.entry(block.section.clone()).or_insert_with(|| {
            let example = example();
            // It has no migrations yet.
            if block.section.contains("push") {
                fs::remove_dir_all(&example.drizzle.path).unwrap();
                fs::remove_file(example.folder.path.join("drizzle")).unwrap();
            }
            example
        });
        example.run(&block);
    }
    assert_eq!(sections.len(), 5, "{:?}", sections.keys());
    let pushed = sections.values().last().expect("a section");
    assert_eq!(pushed.database.tables(), ["notes"]);
}

#[test]
fn the_dockerfile_of_the_guide_for_adopters_is_that_of_the_example() {
    let example = project("examples/node-drizzle/Dockerfile");
    let blocks = blocks(GUIDE);
    let block = blocks.iter().find(|block| block.language == "dockerfile").expect("a Dockerfile");
    for line in block.content.lines() {
        assert!(example.lines().any(|other| other == line), "{line}");
    }
}
