//! Every file of the corpora, through the targets that they belong to: what a fuzzer once found stays fixed, without a nightly
//! compiler. And some changes of each, for what a fuzzer would find at once.

use fastrand::Rng;
use std::fs;
use std::path::{Path, PathBuf};
use thumbnet_fuzz::TARGETS;

/// Changes of each file.
const CHANGES: usize = 40;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a target's corpus, in an order that is always the same.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(corpora().join(target)).unwrap_or_else(|error| panic!("the corpus of {target}: {error}"));
    let mut files: Vec<_> = folder.map(|file| file.expect("a readable folder").path()).collect();
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    files.sort();
    files
}

#[test]
fn every_file_of_the_corpora_is_met_without_a_panic() {
    for (name, target) in TARGETS {
        for file in corpus(name) {
            println!("{}", file.display()); // shown if it fails
            target(&fs::read(&file).expect("a readable file"));
        }
    }
    let folders = fs::read_dir(corpora()).expect("a readable folder").count();
    assert_eq!(folders, TARGETS.len(), "a corpus without a target");
}

#[test]
fn changed_files_of_the_corpora_are_met_without_a_panic() {
    let mut rng = Rng::with_seed(1);
    for (name, target) in TARGETS {
        for file in corpus(name) {
            let original = fs::read(&file).expect("a readable file");
            for change in 0..CHANGES {
                println!("{} with change {change}", file.display()); // shown if it fails
                let mut bytes = original.clone();
                for _ in 0..rng.usize(1..=4) {
                    edit(&mut bytes, &mut rng);
                }
                target(&bytes);
            }
        }
    }
}

/// Changes a byte, or takes some out, or puts some in.
fn edit(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(0..=bytes.len());
    match rng.u8(0..6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.splice(at..at, [rng.u8(..), rng.u8(..)])),
        2 => drop(bytes.drain(at..(at + rng.usize(0..8)).min(bytes.len()))),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.u8(0..8)),
    }
}
