//! Malformed input of every kind, and the message that each gives: exit code 2, one message, nothing written.
//!
//! The messages are kept in `snapshots/`; `cargo insta review` shows what a change does to them.

mod common;

use common::{big_endian, run, train_tiny, workspace};
use flate2::{Compression, write::GzEncoder};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// What is wrong, the files that are to be there, and the command.
struct Case {
    what: &'static str,
    files: Vec<(String, Vec<u8>)>,
    command: String,
}

fn case(what: &'static str, files: &[(&str, &[u8])], command: &str) -> Case {
    let files = files.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
    Case { what, files, command: command.to_owned() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One file of a data set of which the other three are there and good.
fn idx() -> Vec<Case> {
    let file = |name: &str, what, bytes| Case {
        what,
        files: vec![(name.to_owned(), bytes)],
        command: "train digits --data SET --out kept.tnet".to_owned(),
    };
    let with = |what, bytes: Vec<u8>| file("train-images-idx3-ubyte", what, bytes);
    let labels = |what, bytes: Vec<u8>| file("train-labels-idx1-ubyte", what, bytes);
    let header = |words: &[u32], len: usize| [big_endian(words), vec![0; len]].concat();
    let good = header(&[0x803, 10, 28, 28], 7840);
    let zipped = gzip(&good);
    let mut wrong_sum = zipped.clone();
    let end = wrong_sum.len();
    wrong_sum[end - 8] ^= 1;
    vec![
        with("IDX: an empty file", Vec::new()),
        with("IDX: three bytes", vec![0, 0, 8]),
        with("IDX: a header without sizes", big_endian(&[0x803])),
        with("IDX: labels in place of images", header(&[0x801, 10], 10)),
        with("IDX: floats", header(&[0xd03, 10, 28, 28], 7840)),
        with("IDX: another format", b"GIF89a and so on, for a while".to_vec()),
        with("IDX: a byte too few", good[..good.len() - 1].to_vec()),
        with("IDX: a byte too many", [&good[..], &[0]].concat()),
        with("IDX: no images", header(&[0x803, 0, 28, 28], 0)),
        with("IDX: images without pixels", header(&[0x803, 320, 0, 28], 0)),
        with("IDX: sizes whose product overflows", header(&[0x803, u32::MAX, u32::MAX, u32::MAX], 100)),
        with("IDX: images larger than the format allows", header(&[0x803, 1, 5000, 5000], 100)),
        with("IDX: other images than the test part has", header(&[0x803, 320, 14, 14], 320 * 196)),
        with("gzip: cut short", zipped[..zipped.len() / 2].to_vec()),
        with("gzip: only the magic number", vec![0x1f, 0x8b]),
        with("gzip: a wrong checksum", wrong_sum),
        with("gzip: garbage after the header", [&zipped[..10], &[0xff; 50]].concat()),
        with("gzip: something else inside", gzip(b"hello")),
        labels("IDX: images in place of labels", good.clone()),
        labels("IDX: fewer labels than images", header(&[0x801, 9], 9)),
        labels("IDX: labels cut short", header(&[0x801, 10], 9)),
    ]
}

fn blobs(model: &[u8]) -> Vec<Case> {
    let with = |what, bytes: Vec<u8>, command: &str| Case {
        what,
        files: vec![("bad.tnet".to_owned(), bytes)],
        command: command.to_owned(),
    };
    let changed = |position: usize| {
        let mut bytes = model.to_vec();
        bytes[position] ^= 0x40;
        bytes
    };
    vec![
        with("model: an empty file", Vec::new(), "inspect bad.tnet"),
        with("model: a text", b"not a model, but a text that is long enough".to_vec(), "inspect bad.tnet"),
        with("model: only the magic number", model[..4].to_vec(), "inspect bad.tnet"),
        with("model: cut in the header", model[..40].to_vec(), "inspect bad.tnet"),
        with("model: cut in the weights", model[..model.len() - 64].to_vec(), "eval bad.tnet --data tiny"),
        with("model: more after its end", [model, &[0; 64]].concat(), "inspect bad.tnet"),
        with("model: another version", changed(4), "inspect bad.tnet"),
        with("model: a bit flipped in the header", changed(24), "inspect bad.tnet"),
        with("model: a bit flipped in the weights", changed(model.len() / 2), "predict bad.tnet words.png"),
        with("model: an ensemble of nothing", b"TNEN\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), "inspect bad.tnet"),
        with("model: an ensemble cut short", b"TNEN".to_vec(), "eval bad.tnet --data tiny"),
        with("model: an ensemble with a text", b"TNEN".to_vec(), "ensemble tiny.tnet bad.tnet --out kept.tnet"),
        case("model: not there", &[], "inspect gone.tnet"),
        case("model: a folder", &[], "inspect tiny"),
    ]
}

fn recipes() -> Vec<Case> {
    let start = "description = \"x\"\nseed = 1\nepochs = 1\nbatch = 8\nlearning_rate = 0.1\nloss = \"cross-entropy\"\n";
    let dense = "[[layers]]\ntype = \"dense\"\ninit = \"he-normal\"\n";
    let with = |what, text: String| Case {
        what,
        files: vec![("bad.toml".to_owned(), text.into_bytes())],
        command: "train bad.toml --data tiny --out kept.tnet".to_owned(),
    };
    let conv = |more: &str| {
        format!(
            "{start}[[layers]]\ntype = \"conv2d\"\nfilters = 4\nkernel = [3, 3]\ninit = \"he-normal\"\n{more}{dense}"
        )
    };
    vec![
        with("recipe: empty", String::new()),
        with("recipe: no TOML", "epochs: 1\n".to_owned()),
        with("recipe: no layers", start.to_owned()),
        with("recipe: an unknown key", format!("momentum = 1\n{start}{dense}")),
        with("recipe: an unknown layer", format!("{start}[[layers]]\ntype = \"lstm\"\n{dense}")),
        with("recipe: an unknown activation", conv("activation = \"gelu\"\n")),
        with("recipe: a number as text", format!("{start}{dense}").replace("epochs = 1", "epochs = \"1\"")),
        with("recipe: a negative number of epochs", format!("{start}{dense}").replace("epochs = 1", "epochs = -1")),
        with("recipe: no epochs", format!("{start}{dense}").replace("epochs = 1", "epochs = 0")),
        with("recipe: a learning rate of nan", format!("{start}{dense}").replace("rate = 0.1", "rate = nan")),
        with("recipe: a window larger than the image", conv("").replace("[3, 3]", "[29, 3]")),
        with("recipe: a stride of 0", conv("stride = [0, 1]\n")),
        with("recipe: no filters", conv("").replace("filters = 4", "filters = 0")),
        with("recipe: a batch normalisation without a micro batch", conv("batch_norm = true\n")),
        with("recipe: a dropout of everything", format!("{start}[[layers]]\ntype = \"dropout\"\nrate = 1.0\n{dense}")),
        with("recipe: other outputs than classes", format!("{start}{dense}outputs = 3\n")),
        with("recipe: a slope that no format has", conv("activation = { leaky-relu = 7.0 }\n")),
        with("recipe: a transfer from nowhere", format!("{start}{dense}[transfer]\nfrom = \"gone.tnet\"\n")),
        case("recipe: not UTF-8", &[("bad.toml", &[0xff, 0xfe, b'x'])], "train bad.toml --data tiny --out kept.tnet"),
    ]
}

fn pictures() -> Vec<Case> {
    let png = {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&(0..64).map(|i| i * 3).collect::<Vec<u8>>()).unwrap();
        bytes
    };
    // Found by the fuzzer.
    let huge = include_bytes!("../../tests/fuzz/corpus/image/announces_gigabytes.png");
    let with = |what, name: &str, bytes: &[u8]| case(what, &[(name, bytes)], &format!("predict tiny.tnet {name}"));
    let mut wrong_sum = png.clone();
    wrong_sum[29] ^= 1;
    vec![
        with("picture: empty", "empty.png", b""),
        with("picture: a text", "text.png", b"not a picture"),
        with("picture: a PNG cut short", "short.png", &png[..png.len() - 20]),
        with("picture: a PNG with a wrong checksum", "sum.png", &wrong_sum),
        with("picture: a PNG of a few bytes that promises gigabytes", "huge.png", huge),
        with("picture: a JPEG of two bytes", "two.jpg", &[0xff, 0xd8]),
        with("picture: a PGM without pixels", "none.pgm", b"P5 0 0 255\n"),
        with("picture: a PGM that promises too much", "huge.pgm", b"P5 60000 60000 255\n12"),
        with("picture: of one colour", "blank.pgm", b"P2 2 2 255 7 7 7 7"),
        case("picture: another size than the model's", &[("8x8.png", &png)], "predict tiny.tnet 8x8.png --as-is"),
        case("picture: not there", &[], "predict tiny.tnet gone.png"),
    ]
}

fn tables() -> Vec<Case> {
    let csv = |what, text: &str| case(what, &[("bad.csv", text.as_bytes())], "data bad.csv");
    let npz = |what, bytes: &[u8]| case(what, &[("bad.npz", bytes)], "data bad.npz");
    vec![
        csv("CSV: empty", ""),
        csv("CSV: only names", "a,b,label\n"),
        csv("CSV: a column too few", "1,2,a\n1,b\n"),
        csv("CSV: a word among numbers", "1,2,a\n1,x,b\n1,2,a\n1,2,b\n"),
        csv("CSV: an infinite value", "1,2,a\n1,inf,b\n1,2,a\n1,2,b\n"),
        csv("CSV: an open quotation", "1,2,a\n\"1,2,b\n"),
        csv("CSV: no values", "a\nb\na\n"),
        case("CSV: no such column", &[("c.csv", b"1,2,a\n3,4,b\n")], "data c.csv --label colour"),
        case("CSV: another shape", &[("c.csv", b"1,2,a\n3,4,b\n1,2,a\n3,4,b\n")], "data c.csv --shape 3x3"),
        npz("npz: a zip file of nothing", b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        npz("npz: cut short", b"PK\x03\x04\x14\0\0\0"),
        case("npz: one array", &[("a.npy", b"\x93NUMPY\x01\0")], "data a.npy"),
        case("data: an empty folder", &[("empty/.keep", b"")], "data empty"),
        case("data: not there", &[], "data nowhere"),
        case("log: another table", &[("bad.csv", b"a,b\n1,2\n")], "report tiny.tnet --data tiny --log bad.csv"),
        case("checkpoint: not one", &[("run/recipe.toml", b"seed = 1\n")], "train --resume run --data tiny"),
    ]
}

fn command_lines() -> Vec<Case> {
    [
        ("no command", ""),
        ("an unknown command", "fly"),
        ("an unknown option", "train --fast"),
        ("an option without its value", "train --out"),
        ("no model", "eval"),
        ("an unknown recipe", "train mnist --data tiny"),
        ("a negative number", "train digits --data tiny --epochs -1"),
        ("no epochs", "train digits --data tiny --epochs 0"),
        ("no threads", "train digits --data tiny --threads 0"),
        ("options that exclude each other", "train digits --resume run --data tiny"),
        ("an unknown type of weights", "convert tiny.tnet --weights int4 --out kept.tnet"),
        ("a shape of nothing", "eval tiny.tnet --data tiny --shape 0x28"),
        ("an unknown class", "eval tiny.tnet --data tiny --classes 1,cat"),
        ("a class by itself", "eval tiny.tnet --data tiny --classes 1"),
        ("frozen layers without a model", "train digits --data tiny --freeze 1"),
        ("more frozen layers than there are", "train digits --data tiny --from tiny.tnet --freeze 9 --out kept.tnet"),
        ("a grid without values", "tune digits --data tiny --grid learning_rate="),
        ("an unknown key in a grid", "tune digits --data tiny --grid speed=1,2"),
        ("no such port", "device info --port nowhere"),
        ("no such host", "device info --port tcp:nowhere"),
        ("an output that is a folder", "convert tiny.tnet --weights f16 --data tiny --out tiny"),
        ("an output in no folder", "convert tiny.tnet --weights f16 --data tiny --out nowhere/x.tnet"),
    ]
    .map(|(what, command)| case(what, &[], command))
    .into()
}

/// The message of a case, in a folder with a good data set, a good model and a file that must stay as it is.
fn message(folder: &Path, case: &Case) -> Result<String, String> {
    let command = if case.command.contains("SET") {
        copy(&folder.join("tiny"), &folder.join("set"));
        for (name, bytes) in &case.files {
            // What is gzipped is called so.
            let gzipped = bytes.starts_with(&[0x1f, 0x8b]);
            std::fs::write(folder.join("set").join(if gzipped { format!("{name}.gz") } else { name.clone() }), bytes)
                .unwrap();
        }
        case.command.replace("SET", "set")
    } else {
        for (name, bytes) in &case.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        case.command.clone()
    };
    let args: Vec<&str> = command.split_whitespace().collect();
    let output = run(folder, &args);
    let message = String::from_utf8(output.stderr).expect("a message is text");
    let kept = std::fs::read(folder.join("kept.tnet")).unwrap() == b"precious";
    if output.status.code() == Some(2) && kept && !message.contains("panicked") && !message.trim().is_empty() {
        return Ok(message);
    }
    Err(format!("{} ({}): {message}", case.what, output.status))
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn malformed_input_has_a_message_and_loses_nothing() {
    let folder = workspace();
    train_tiny(folder.path(), "tiny.tnet");
    let model = std::fs::read(folder.path().join("tiny.tnet")).unwrap();
    std::fs::write(folder.path().join("kept.tnet"), "precious").unwrap();
    let kinds = [idx(), blobs(&model), recipes(), pictures(), tables(), command_lines()];
    let cases: Vec<Case> = kinds.into_iter().flatten().collect();
    assert!(cases.len() >= 100, "{}", cases.len());
    let (mut messages, mut unexpected) = (String::new(), Vec::new());
    for case in &cases {
        let message = message(folder.path(), case).unwrap_or_else(|problem| {
            unexpected.push(problem);
            String::new()
        });
        // (Of clap's messages the first line: the rest is usage, which every new option changes.)
        let shown = if message.contains("Usage:") { message.lines().next().unwrap_or("") } else { message.trim_end() };
        writeln!(messages, "## {}\n$ thumbnet {}\n{shown}\n", case.what, case.command).unwrap();
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    insta::assert_snapshot!(messages);
}
