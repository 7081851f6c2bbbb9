//! Runs `thumbnet report` as a user does.

mod common;

use common::{fails, repository_data, shipped_model, succeeds, train_tiny, workspace};

#[test]
fn a_model_that_ships_is_reported_on() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["report", &shipped_model("cnn-8-16-int8.tnet"), "--data", &repository_data()];
    assert!(succeeds(folder.path(), &arguments).starts_with("report.html: "));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    // 98.85 %, as models/README.md says, and 115 mistakes of which 40 are shown; 8 kernels.
    assert!(page.contains("<strong>98.85 %</strong>") && page.contains("115 of 10,000 wrong"));
    assert_eq!(page.matches("data:image/png").count(), 40 + 8);
    assert!(!page.contains("<h2>Training</h2>") && !page.contains("<h2>Recipe</h2>"));
}

#[test]
fn log_and_recipe_are_shown() {
    let folder = workspace();
    let train =
        ["train", "digits", "--data", "tiny", "--epochs", "2", "--out", "a.tnet", "--log", "log.csv", "--quiet"];
    succeeds(folder.path(), &train);
    std::fs::write(folder.path().join("a.toml"), "# mine\n").unwrap();
    let report = ["report", "a.tnet", "--data", "tiny"];
    let files = ["--log", "log.csv", "--recipe", "a.toml", "--out", "page.html"];
    succeeds(folder.path(), &[&report[..], &files].concat());
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("<h2>Training</h2>") && page.contains("# mine"));
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    let folder = workspace();
    train_tiny(folder.path(), "a.tnet");
    std::fs::write(folder.path().join("bad.csv"), "epoch,train_acc\n1,good\n").unwrap();
    let report = |rest: &[&'static str]| [&["report", "a.tnet", "--data", "tiny"], rest].concat();
    fails(folder.path(), &report(&["--log", "bad.csv"]), &["bad.csv", "line 2", "good"]);
    fails(folder.path(), &report(&["--log", "none.csv"]), &["none.csv"]);
    fails(folder.path(), &report(&["--recipe", "none.toml"]), &["none.toml"]);
    fails(folder.path(), &report(&["--out", "nowhere/page.html"]), &["nowhere"]);
    fails(folder.path(), &["report", "bad.csv", "--data", "tiny"], &["bad.csv", "not a usable model"]);
    assert!(!folder.path().join("report.html").exists());
}
