//! Data sets of every format: read back exactly, refused where they are damaged, and trained on through the command.

mod common;

use common::{big_endian, fails, json, shipped_model, succeeds, workspace};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use thumbnet::layer::Shape;
use thumbnet_trainer::data::{DataSet, Kind, Options, PIXEL_SCALE, Parts, Source, Values};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn write(path: PathBuf, contents: impl AsRef<[u8]>) -> PathBuf {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
    std::fs::write(&path, contents).expect("a file is written");
    path
}

fn options(shape: Option<[u16; 3]>, label: Option<&str>) -> Options {
    let shape = shape.map(|[height, width, channels]| Shape::new(height, width, channels));
    Options { shape, label: label.map(str::to_owned), classes: None }
}

fn read_as(path: &Path, options: Options) -> Result<(Kind, Parts), String> {
    let source = Source::open(path, options).map_err(|e| e.to_string())?;
    source.parts().map(|parts| (source.kind(), parts)).map_err(|e| e.to_string())
}

fn read(path: &Path) -> Result<(Kind, Parts), String> {
    read_as(path, Options::default())
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A `.npy` file of version 1.
fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (index, (name, bytes)) in arrays.iter().enumerate() {
        // As np.savez and as np.savez_compressed.
        let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][index % 2];
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn little_endian<const N: usize>(values: &[[u8; N]]) -> Vec<u8> {
    values.concat()
}

fn i64s(values: &[i64]) -> Vec<u8> {
    little_endian(&values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn f32s(values: &[f32]) -> Vec<u8> {
    little_endian(&values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn png(color: png::ColorType, width: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let height = pixels.len() as u32 / width / color.samples() as u32;
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

fn shape(data: &DataSet) -> [u16; 3] {
    let Shape { height, width, channels } = data.input.shape;
    [height, width, channels]
}

fn names(data: &DataSet) -> String {
    data.classes.join(" ")
}

/// Two images of 2 x 3 pixels to train on and one to test on, with more than ten classes.
fn idx(folder: &Path) {
    for (part, images, labels) in
        [("train", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255][..], &[25, 3][..]), ("t10k", &[0; 6], &[26])]
    {
        let count = labels.len() as u32;
        let images = [&big_endian(&[0x803, count, 2, 3])[..], images].concat();
        write(folder.join(format!("{part}-images-idx3-ubyte.gz")), gzipped(&images));
        write(folder.join(format!("{part}-labels-idx1-ubyte")), [&big_endian(&[0x801, count])[..], labels].concat());
    }
}

#[test]
fn idx_files_have_as_many_classes_as_they_have() {
    let folder = folder();
    idx(folder.path());
    let (kind, Parts { training, test, held_back }) = read(folder.path()).unwrap();
    assert_eq!((kind, held_back, shape(&training)), (Kind::Idx, false, [2, 3, 1]));
    assert_eq!(training.values, Values::Bytes(vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255]));
    assert_eq!((&training.labels[..], &test.labels[..]), (&[25, 3][..], &[26][..]));
    assert_eq!((training.classes.len(), &training.classes[26][..]), (27, "26"));
    assert_eq!(training.classes, test.classes);

    let letters: String = (b'a'..=b'z').map(|letter| format!("{}\n", letter as char)).collect();
    write(folder.path().join("classes.txt"), format!("-\n{letters}"));
    assert_eq!(read(folder.path()).unwrap().1.test.classes[26], "z");
    write(folder.path().join("classes.txt"), letters);
    let message = read(folder.path()).unwrap_err();
    assert!(message.contains("label 26 at position 0, expected 0 to 25 as in classes.txt"), "{message}");
}

#[test]
fn pictures_are_read_from_the_folders_of_their_classes() {
    let folder = folder();
    let grey = |part: &str, class: &str, name: &str, pixels: &[u8]| {
        write(folder.path().join(part).join(class).join(name), png(png::ColorType::Grayscale, 2, pixels));
    };
    grey("both/train", "dog", "2.png", &[5, 6]);
    grey("both/train", "dog", "10.PNG", &[3, 4]);
    grey("both/train", "cat", "1.png", &[1, 2]);
    grey("both/test", "dog", "1.png", &[7, 8]);
    write(folder.path().join("both/train/.hidden/x.txt"), "x");
    let (kind, Parts { training, test, held_back }) = read(&folder.path().join("both")).unwrap();
    assert_eq!(
        (kind, held_back, shape(&training), names(&training)),
        (Kind::Pictures, false, [1, 2, 1], "cat dog".into())
    );
    assert_eq!((&training.values, &training.labels[..]), (&Values::Bytes(vec![1, 2, 3, 4, 5, 6]), &[0, 1, 1][..]));
    assert_eq!((&test.values, &test.labels[..]), (&Values::Bytes(vec![7, 8]), &[1][..]));
    // However dark they are, they are pixels.
    assert_eq!((training.input.scale, training.factor), (PIXEL_SCALE, 1.0));

    // Without test/, every fifth of each class is held back; RGB, and RGBA without transparent pixels, give three channels.
    for index in 0..10u8 {
        let pixels = [index, 100, 200, 0, 0, 7];
        write(folder.path().join(format!("one/{}/{index}.png", index % 2 + 9)), png(png::ColorType::Rgb, 2, &pixels));
    }
    write(folder.path().join("one/9/0.png"), png(png::ColorType::Rgba, 2, &[0, 100, 200, 255, 0, 0, 7, 255]));
    let (_, Parts { training, test, held_back }) = read(&folder.path().join("one")).unwrap();
    assert_eq!((held_back, shape(&training), names(&test)), (true, [1, 2, 3], "9 10".into()));
    assert_eq!((training.len(), test.values), (8, Values::Bytes(vec![8, 100, 200, 0, 0, 7, 9, 100, 200, 0, 0, 7])));
    assert_eq!(&training.bytes(0).unwrap()[..3], &[0, 100, 200]);

    // And all of it as grey pictures of one pixel.
    let (_, parts) = read_as(&folder.path().join("both"), options(Some([1, 1, 3]), None)).unwrap();
    assert_eq!((shape(&parts.test), parts.test.values), ([1, 1, 3], Values::Bytes(vec![8; 3])));
}

#[test]
fn numpy_arrays_are_read_whatever_their_type_and_names() {
    let folder = folder();
    let path = |name: &str, arrays: &[(&str, Vec<u8>)]| write(folder.path().join(name), npz(arrays));
    let keras = path(
        "keras.npz",
        &[
            ("x_train", npy("|u1", "(2, 1, 2)", &[0, 255, 7, 8])),
            ("y_train", npy("|u1", "(2,)", &[11, 0])),
            ("x_test", npy("|u1", "(1, 1, 2)", &[9, 10])),
            ("y_test", npy("|u1", "(1, 1)", &[3])),
        ],
    );
    let (kind, Parts { training, test, held_back }) = read(&keras).unwrap();
    assert_eq!((kind, held_back, shape(&training)), (Kind::Npz, false, [1, 2, 1]));
    assert_eq!((training.values, test.values), (Values::Bytes(vec![0, 255, 7, 8]), Values::Bytes(vec![9, 10])));
    assert_eq!((&training.labels[..], &test.labels[..], training.classes.len()), (&[11, 0][..], &[3][..], 12));
    assert_eq!((training.input.scale, training.factor), (PIXEL_SCALE, 1.0));

    let target = || npy("<i8", "(2,)", &i64s(&[1, 0]));
    for (kind, data, expected) in [
        ("<f4", f32s(&[0.5, -3.0, 2.0, 1e6]), [0.5, -3.0, 2.0, 1e6]),
        (">f4", [0.5f32, -3.0, 2.0, 1e6].map(f32::to_be_bytes).concat(), [0.5, -3.0, 2.0, 1e6]),
        ("<f8", [0.5f64, -3.0, 2.0, 1e6].map(f64::to_le_bytes).concat(), [0.5, -3.0, 2.0, 1e6]),
        ("<f2", vec![0, 0x38, 0, 0xc2, 0, 0x40, 0, 0x3c], [0.5, -3.0, 2.0, 1.0]),
        ("<i2", [-1i16, 0, 2, 300].map(i16::to_le_bytes).concat(), [-1.0, 0.0, 2.0, 300.0]),
        (">i4", [-1i32, 0, 2, 300].map(i32::to_be_bytes).concat(), [-1.0, 0.0, 2.0, 300.0]),
        ("<i8", i64s(&[-1, 0, 2, 300]), [-1.0, 0.0, 2.0, 300.0]),
        ("<u2", [1u16, 0, 2, 300].map(u16::to_le_bytes).concat(), [1.0, 0.0, 2.0, 300.0]),
        ("|i1", vec![255, 0, 2, 3], [-1.0, 0.0, 2.0, 3.0]),
    ] {
        let path = path("typed.npz", &[("data", npy(kind, "(2, 2)", &data)), ("target", target())]);
        let all = Source::open(&path, Options::default()).unwrap().all().unwrap();
        assert_eq!((&all.values, shape(&all)), (&Values::Floats(expected.to_vec()), [1, 2, 1]), "{kind}");
        assert_eq!(all.labels, [1, 0], "{kind}");
    }
    // Whole numbers that fit into bytes are bytes, whatever their type.
    let images = npy("<f8", "(2, 1, 2, 1)", &[0.0f64, 16.0, 2.0, 3.0].map(f64::to_le_bytes).concat());
    let path = path("bytes.npz", &[("images", images), ("labels", target())]);
    let (_, Parts { training, .. }) = read(&path).unwrap();
    assert_eq!((training.values.clone(), training.input.scale), (Values::Bytes(vec![0, 16, 2, 3]), 1.0));
    assert_eq!(shape(&read_as(&path, options(Some([2, 1, 1]), None)).unwrap().1.training), [2, 1, 1]);
}

#[test]
fn csv_files_are_read_with_and_without_a_header() {
    let folder = folder();
    let read = |text: &str, options: Options| {
        let source = Source::open(&write(folder.path().join("data.csv"), text), options).unwrap();
        assert_eq!(source.kind(), Kind::Csv);
        source.all().unwrap()
    };
    let expected = Values::Floats(vec![1.0, -2.5, 3.0, 4e-3]);
    for (text, label) in [
        ("1,-2.5,b\n3,4e-3,a\n", None),
        ("1;-2.5;b\r\n 3; 4e-3;\"a\"\r\n", None),
        ("1\t-2.5\tb\n\n3\t4e-3\ta", None),
        ("Label,p0,p1\nb,1,-2.5\na,3,4e-3\n", None),
        ("\u{feff}p0,kind,p1\n1,b,-2.5\n3,a,4e-3\n", Some("kind")),
        ("b,1,-2.5\na,3,4e-3\n", Some("1")),
    ] {
        let data = read(text, options(None, label));
        assert_eq!((&data.values, shape(&data), names(&data)), (&expected, [1, 2, 1], "a b".into()), "{text}");
        assert_eq!(data.labels, [1, 0], "{text}");
    }
    let data = read("0,16,10.0\n2,3,9\n4,5,1e1\n", options(Some([2, 1, 1]), None));
    assert_eq!((&data.values, shape(&data)), (&Values::Bytes(vec![0, 16, 2, 3, 4, 5]), [2, 1, 1]));
    assert_eq!((&data.labels[..], names(&data)), (&[1, 0, 1][..], "9 10".into()));

    // Two files, one of them gzipped: the classes are those of both.
    let pair = folder.path().join("pair");
    write(pair.join("train.csv"), "x,y\n0.5,a\n1.5,c\n");
    write(pair.join("test.csv.gz"), gzipped(b"x,y\n2.5,b\n"));
    let (kind, Parts { training, test, held_back }) = self::read(&pair).unwrap();
    assert_eq!((kind, held_back, names(&training)), (Kind::CsvFolder, false, "a b c".into()));
    assert_eq!(
        (&training.labels[..], &test.labels[..], test.values),
        (&[0, 2][..], &[1][..], Values::Floats(vec![2.5]))
    );
}

#[test]
fn malformed_files_are_refused_with_what_was_found_and_expected() {
    let folder = folder();
    let check = |name: &str, bytes: &[u8], options: Options, parts: &[&str]| {
        let path = write(folder.path().join(name), bytes);
        let message = read_as(&path, options).expect_err(name);
        assert!(message.contains(name) || message.contains("--"), "{name}: {message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{name}: no {part:?} in: {message}"));
    };
    let plain = Options::default;
    for (name, text, label, parts) in [
        ("ragged.csv", "1,2,a\n3,b\n", None, &["line 2: 2 columns, expected 3 as in the first line"][..]),
        ("nan.csv", "1,2,a\n3,NaN,b\n", None, &["line 2, column 2: \"NaN\", expected a number"]),
        ("infinite.csv", "1,1e999,a\n", None, &["line 1, column 2: \"1e999\""]),
        ("word.csv", "1,2,a\n3,x,b\n", None, &["line 2, column 2: \"x\", expected a number"]),
        ("gap.csv", "1,,a\n", None, &["line 1, column 2: \"\", expected a number"]),
        ("unlabelled.csv", "1,2,\n", None, &["line 1, column 3: no label"]),
        ("empty.csv", "", None, &["no examples"]),
        ("header.csv", "p0,p1,label\n", None, &["no examples"]),
        ("one.csv", "1\n2\n", None, &["line 1: one column, expected values and a label"]),
        ("names.csv", "p0,p1\n1,2\n", Some("kind"), &["--label kind: no such column; there are p0, p1"]),
        ("numbers.csv", "1,2\n3,4\n", Some("kind"), &["--label kind", "names no columns"]),
        ("narrow.csv", "1,2\n3,4\n", Some("3"), &["--label 3: there are 2 columns"]),
        ("zero.csv", "1,2\n3,4\n", Some("0"), &["--label 0: there are 2 columns"]),
    ] {
        check(name, text.as_bytes(), options(None, label), parts);
    }
    let regression: String = (0..40).map(|line| format!("{line},{}\n", f64::from(line) / 3.0)).collect();
    check("regression.csv", regression.as_bytes(), plain(), &["40 different labels in 40 lines", "--label"]);
    check(
        "shape.csv",
        b"1,2,3,a\n",
        options(Some([2, 2, 1]), None),
        &["3 columns of values, but --shape 2x2x1 takes 4"],
    );
    check("latin.csv", b"1,2,caf\xe9\n", plain(), &["not a CSV file", "UTF-8"]);
    check("wide.csv", format!("{}a\n", "1,".repeat(70_000)).as_bytes(), plain(), &["1x70000x1", "65535"]);
    let zipped = gzipped(&regression.repeat(50).into_bytes());
    check("cut.csv.gz", &zipped[..zipped.len() / 2], plain(), &["truncated gzip"]);

    let x = || ("x", npy("<f4", "(2, 2)", &f32s(&[0.5; 4])));
    let y = || ("y", npy("<i8", "(2,)", &i64s(&[0, 1])));
    let whole = npz(&[x(), y()]);
    check("cut.npz", &whole[..whole.len() - 30], plain(), &["truncated zip"]);
    check("half.npz", &whole[..whole.len() / 2], plain(), &["truncated zip"]);
    for (name, arrays, parts) in [
        ("none.npz", vec![], &["x_train", "found none"][..]),
        ("lonely.npz", vec![x()], &["expected arrays x_train, y_train, x_test, y_test", "found x"]),
        (
            "untested.npz",
            vec![("x_train", x().1), ("y_train", y().1), ("x_test", x().1)],
            &["array x_test, but no y_test"],
        ),
        ("unlabelled.npz", vec![("x_train", x().1)], &["array x_train, but no y_train"]),
        ("few.npz", vec![x(), ("y", npy("<i8", "(1,)", &i64s(&[0])))], &["array y", "[1]", "expected [2]"]),
        ("negative.npz", vec![x(), ("y", npy("<i8", "(2,)", &i64s(&[0, -1])))], &["array y", "label -1 at position 1"]),
        (
            "large.npz",
            vec![x(), ("y", npy("<i8", "(2,)", &i64s(&[70_000, 0])))],
            &["array y", "label 70000 at position 0"],
        ),
        ("half.npz", vec![x(), ("y", npy("<f4", "(2,)", &f32s(&[0.5, 1.0])))], &["array y", "label 0.5"]),
        (
            "nan.npz",
            vec![("x", npy("<f4", "(2, 2)", &f32s(&[0.0, 0.0, 0.0, f32::NAN]))), y()],
            &["array x", "NaN in example 1"],
        ),
        ("text.npz", vec![("x", npy("<U3", "(2, 2)", &[0; 48])), y()], &["array x", "\"<U3\"", "expected integers"]),
        ("record.npz", vec![("x", npy("x", "(2, 2)", &[])), y()], &["array x", "\"x\""]),
        ("short.npz", vec![("x", npy("<f4", "(2, 2)", &[0; 15])), y()], &["array x", "15 bytes", "[2, 2] of <f4"]),
        ("huge.npz", vec![("x", npy("<f4", "(9999999999, 9999999999)", &[])), y()], &["array x", "0 bytes of data"]),
        ("flat.npz", vec![("x", npy("<f4", "(2,)", &[0; 8])), y()], &["array x", "the shape [2], expected [N, L]"]),
        ("void.npz", vec![("x", npy("<f4", "(2, 0)", &[])), y()], &["array x", "1x0x1"]),
        ("noise.npz", vec![("x", b"noise".to_vec()), y()], &["array x", "not a numpy array"]),
        (
            "unlike.npz",
            vec![
                ("x_train", x().1),
                ("y_train", y().1),
                ("x_test", npy("|u1", "(1, 3)", &[0; 3])),
                ("y_test", npy("|u1", "(1,)", &[0])),
            ],
            &["array x_test: examples of 1x3x1, but x_train has 1x2x1"],
        ),
    ] {
        check(name, &npz(&arrays), plain(), parts);
    }
    let fortran = String::from_utf8_lossy(&npy("|u1", "(2, 2)", &[])).replace("False", "True ").into_bytes();
    let fortran = [&b"\x93"[..], &fortran[fortran.iter().position(|&b| b == b'N').unwrap()..], &[0; 4]].concat();
    check("fortran.npz", &npz(&[("x", fortran), y()]), plain(), &["array x", "Fortran order"]);
    check("lone.npy", &x().1, plain(), &["a single numpy array"]);
    check("asked.npz", &whole, options(Some([3, 1, 1]), None), &["examples of 1x2x1, which cannot be taken as 3x1x1"]);
    check("labelled.npz", &whole, options(None, Some("y")), &["--label", "labelled.npz"]);
}

#[test]
fn malformed_folders_are_refused_with_what_was_found_and_expected() {
    let folder = folder();
    let grey = |width, pixels: &[u8]| png(png::ColorType::Grayscale, width, pixels);
    let check = |files: &[(&str, Vec<u8>)], parts: &[&str]| {
        let root = tempfile::tempdir_in(folder.path()).unwrap();
        files.iter().for_each(|(name, bytes)| {
            if name.ends_with('/') {
                std::fs::create_dir_all(root.path().join(name)).unwrap();
            } else {
                write(root.path().join(name), bytes);
            }
        });
        let message = read(root.path()).expect_err("a message");
        parts.iter().for_each(|part| assert!(message.contains(part), "no {part:?} in: {message}"));
    };
    let good = || ("a/1.png", grey(2, &[1, 2]));
    check(&[], &["no data set in this folder", "train-images-idx3-ubyte", "train.csv", "pictures"]);
    check(&[good(), ("b/2.png", grey(1, &[1, 2]))], &["b/2.png", "2x1x1, expected 1x2x1 as of", "a/1.png", "--shape"]);
    check(&[good(), ("b/2.png", png(png::ColorType::Rgb, 2, &[0; 6]))], &["b/2.png", "1x2x3, expected 1x2x1"]);
    check(&[good(), ("b/", vec![])], &["b: no pictures in the folder of this class"]);
    check(&[good(), ("b/2.png", b"words".to_vec())], &["b/2.png: not a picture, or a damaged one"]);
    check(&[good(), ("b/2.txt", b"words".to_vec())], &["b/2.txt: not a picture, expected png"]);
    check(&[good(), ("notes.txt", vec![])], &["notes.txt: a file among the folders", "expected folders called a"]);
    let see_through = png(png::ColorType::GrayscaleAlpha, 1, &[1, 128]);
    check(&[("a/1.png", see_through)], &["a/1.png: a picture with transparent pixels"]);
    let test = |name: &'static str| [("train/a/1.png", good().1), (name, good().1)];
    check(&test("test/b/1.png"), &["test/b: a class that is not in train, expected folders called a"]);
    check(&test("test/1.png"), &["test/1.png: a file among the folders"]);
    check(&[("train/", vec![])], &["train: 0 folders, expected one for each class"]);
    check(&[("train.csv", b"1,a\n".to_vec())], &["test.csv: no such file"]);
    check(
        &[("train.csv", b"1,a\n".to_vec()), ("test.csv", b"1,2,a\n".to_vec())],
        &["test.csv: 2 columns of values, but 1"],
    );
    let message = read(&folder.path().join("nowhere")).unwrap_err();
    assert!(message.contains("nowhere: no such file or folder"), "{message}");
}

/// Whatever is cut off, and whichever byte is another: there are examples, or there is a message.
#[test]
fn damaged_files_are_read_or_refused() {
    let folder = folder();
    let x = npy("<f4", "(2, 2)", &f32s(&[0.5, 1.0, 2.0, 3.0]));
    let arrays = npz(&[("x", x), ("y", npy("|u1", "(2,)", &[0, 1]))]);
    let labels = [&big_endian(&[0x801, 2])[..], &[0, 1]].concat();
    let images = [&big_endian(&[0x803, 2, 1, 1])[..], &[0, 1]].concat();
    write(folder.path().join("mnist/train-images-idx3-ubyte"), &images);
    write(folder.path().join("mnist/t10k-images-idx3-ubyte"), &images);
    write(folder.path().join("mnist/train-labels-idx1-ubyte"), &labels);
    write(folder.path().join("mnist/t10k-labels-idx1-ubyte"), &labels);
    let picture = png(png::ColorType::Rgb, 3, &[7; 27]);
    write(folder.path().join("pictures/a/0.png"), &picture);
    let (mut tried, mut read_back) = (0, 0);
    let mut attempt = |path: &Path, file: &Path, bytes: &[u8]| {
        write(file.to_owned(), bytes);
        tried += 1;
        if let Ok((_, Parts { training, test, .. })) = read(path) {
            read_back += 1;
            for part in [training, test] {
                assert_eq!(part.values.len(), part.len() * part.size());
                assert!(part.labels.iter().all(|&label| usize::from(label) < part.classes.len()));
            }
        }
    };
    let files = [
        ("data.npz", "data.npz", arrays),
        ("data.csv", "data.csv", b"p0,p1,label\n1,2.5,a\n\"3\",4,b\n".to_vec()),
        ("data.csv.gz", "data.csv.gz", gzipped(b"p0,p1,label\n1,2.5,a\n3,4,b\n")),
        ("mnist", "mnist/train-images-idx3-ubyte", images),
        ("mnist", "mnist/t10k-labels-idx1-ubyte", labels),
        ("pictures", "pictures/b/1.png", picture),
    ];
    for (path, file, bytes) in files {
        let (path, file) = (folder.path().join(path), folder.path().join(file));
        for length in 0..bytes.len() {
            attempt(&path, &file, &bytes[..length]);
        }
        for index in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[index] ^= flip;
                attempt(&path, &file, &bytes);
            }
        }
        attempt(&path, &file, &bytes);
    }
    assert!(read_back > 10 && read_back < tried, "{read_back} of {tried}");
}

/// A recipe in the folder; `layers` come before a dense layer of `outputs` outputs.
fn recipe(folder: &Path, layers: &str, outputs: usize) {
    let text = format!(
        "description = \"test\"\nseed = 1\nepochs = 12\nbatch = 8\nlearning_rate = 0.05\nloss = \"cross-entropy\"\nshuffle = true\n\
         {layers}\n[[layers]]\ntype = \"dense\"\noutputs = {outputs}\ninit = \"he-normal\"\n"
    );
    write(folder.join("mine.toml"), text);
}

const CONV_1X5: &str =
    "[[layers]]\ntype = \"conv2d\"\nfilters = 4\nkernel = [1, 5]\nactivation = \"relu\"\ninit = \"he-normal\"\n";

/// Waves of 32 samples, slow or fast, of any phase, and as large as `amplitude`.
fn waves(amplitude: f64) -> String {
    let wave = |index: usize| {
        let (name, step) = [("slow", 0.2), ("fast", 1.4)][index % 2];
        let sample = |x: usize| amplitude * (step * x as f64 + 0.37 * index as f64).sin();
        let samples: String = (0..32).map(|x| format!("{:.5},", sample(x))).collect();
        samples + name + "\n"
    };
    (0..400).map(wave).collect()
}

/// A convolution of height 1 learns to tell signals apart, however large they are; the model takes them as they are in the file,
/// and so does the int8 model made from it.
#[test]
fn signals_are_learnt_and_the_model_takes_them_as_they_are() {
    let folder = folder();
    recipe(folder.path(), CONV_1X5, 2);
    let run = |args: &[&str]| succeeds(folder.path(), args);
    for amplitude in [1.0, 3000.0, 1e-3] {
        write(folder.path().join("waves.csv"), waves(amplitude));
        let found = json(&run(&["data", "waves.csv", "--json"]));
        assert_eq!((&found["shape"], &found["training"]), (&serde_json::json!([1, 32, 1]), &320.into()));
        let printed = run(&["train", "mine.toml", "--data", "waves.csv"]);
        let evaluation = json(&run(&["eval", "mine.tnet", "--data", "waves.csv", "--json"]));
        let accuracy = evaluation["accuracy"].as_f64().unwrap();
        assert!(accuracy > 0.95 && evaluation["images"] == 80, "amplitude {amplitude}: {evaluation}");
        // What training saw as its last test is what the core measures.
        assert!(printed.contains(&format!("test accuracy {:.2} % ({} of 80", 100.0 * accuracy, evaluation["correct"])));
        let last = printed.lines().rfind(|line| line.starts_with("epoch")).unwrap();
        assert!(
            last.contains(&format!("test loss {:.4}", evaluation["loss"].as_f64().unwrap())),
            "{last}: {evaluation}"
        );

        let summary = json(&run(&["inspect", "mine.tnet", "--json"]));
        assert_eq!(summary["labels"], serde_json::json!(["fast", "slow"]));
        let offset = summary["offset"].as_f64().unwrap();
        assert!((offset / amplitude + 1.0).abs() < 0.01, "{offset}");
        run(&["convert", "mine.tnet", "--weights", "int8", "--data", "waves.csv", "--out", "int8.tnet"]);
        let int8 = json(&run(&["eval", "int8.tnet", "--data", "waves.csv", "--json"]));
        assert!(int8["accuracy"].as_f64().unwrap() > 0.93, "amplitude {amplitude}: {int8}");
    }
}

#[test]
fn fine_tuning_to_int8_works_on_signals_too() {
    let folder = folder();
    let quantized = format!("{CONV_1X5}[quantize]\nepochs = 2\nlearning_rate = 0.005\n");
    recipe(folder.path(), &quantized, 2);
    write(folder.path().join("waves.csv"), waves(50.0));
    let printed = succeeds(folder.path(), &["train", "mine.toml", "--data", "waves.csv"]);
    let evaluation = json(&succeeds(folder.path(), &["eval", "mine.tnet", "--data", "waves.csv", "--json"]));
    assert!(evaluation["accuracy"].as_f64().unwrap() > 0.95, "{evaluation}");
    // The simulation rounds as the core does: its loss is the core's, but for a value here and there.
    let last = printed.lines().rfind(|line| line.starts_with("epoch")).unwrap();
    let logged: f64 = last.split("test loss ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((logged - evaluation["loss"].as_f64().unwrap()).abs() < 0.01, "{last}: {evaluation}");
    assert_eq!(json(&succeeds(folder.path(), &["inspect", "mine.tnet", "--json"]))["layers"][0]["layer"], "quantize");
}

/// The worked example of `docs/data.md`, with fewer epochs.
#[test]
fn the_digits_of_scikit_learn_are_learnt() {
    let folder = folder();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/digits-8x8/digits.csv.gz");
    let found = json(&succeeds(folder.path(), &["data", data, "--shape", "8x8", "--json"]));
    assert_eq!((&found["shape"], &found["range"]), (&serde_json::json!([8, 8, 1]), &serde_json::json!([0.0, 16.0])));
    let counts = ["training", "test"].map(|part| found[part].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), 1797);
    let text = succeeds(folder.path(), &["data", data]);
    assert!(text.contains("shape 1x64x1") && text.contains("every fifth of each class"), "{text}");
    let train = ["train", "digits-8x8", "--data", data, "--shape", "8x8", "--epochs", "4", "--quiet"];
    succeeds(folder.path(), &train);
    let eval = |more: &[&str]| {
        let args = [&["eval", "digits-8x8.tnet", "--data", data, "--json"], more].concat();
        json(&succeeds(folder.path(), &args))
    };
    let evaluation = eval(&[]);
    assert!(evaluation["accuracy"].as_f64().unwrap() > 0.93 && evaluation["images"] == counts[1], "{evaluation}");
    assert_eq!(
        (&eval(&["--part", "training"])["images"], &eval(&["--part", "all"])["images"]),
        (&counts[0].into(), &1797.into())
    );
    let predicted =
        json(&succeeds(folder.path(), &["predict", "digits-8x8.tnet", "--data", data, "--limit", "20", "--json"]));
    let predicted = predicted.as_array().unwrap();
    let correct = predicted.iter().filter(|one| one["expected"] == one["label"]).count();
    assert!(predicted.len() == 20 && correct >= 15, "{correct} of {predicted:?}");
    let convert = ["convert", "digits-8x8.tnet", "--weights", "int8", "--data", data, "--out", "int8.tnet", "--json"];
    let report = json(&succeeds(folder.path(), &convert));
    let [before, after] = ["accuracy_before", "accuracy_after"].map(|side| report["measured"][side].as_f64().unwrap());
    assert!((before - after).abs() < 0.015, "{report}");
}

/// Pictures of more than one channel are classified as they are, and their folders name the model's classes.
#[test]
fn pictures_in_colour_are_learnt_and_classified() {
    let folder = folder();
    for index in 0..40u8 {
        let (class, pixel) =
            [("red", [200 + index, 10, index]), ("blue", [index, 10, 200 + index])][usize::from(index) % 2];
        let picture = png(png::ColorType::Rgb, 4, &pixel.repeat(16));
        write(folder.path().join(format!("colours/{class}/{index}.png")), picture);
    }
    recipe(folder.path(), "", 2);
    let run = |args: &[&str]| succeeds(folder.path(), args);
    assert!(run(&["data", "colours"]).contains("shape 4x4x3"));
    assert!(run(&["train", "mine.toml", "--data", "colours"]).contains("test accuracy 100.00 % (8 of 8"));
    assert!(run(&["predict", "mine.tnet", "colours/red/0.png"]).starts_with("colours/red/0.png: red ("));
    assert!(run(&["predict", "mine.tnet", "--data", "colours", "--limit", "1"]).contains("expected blue"));
    write(folder.path().join("small.png"), png(png::ColorType::Rgb, 2, &[0; 6]));
    fails(folder.path(), &["predict", "mine.tnet", "small.png"], &["small.png", "1x2x3", "takes 4x4x3"]);
    fails(folder.path(), &["predict", "mine.tnet"], &["IMAGE"]);
    fails(folder.path(), &["predict", &shipped_model("digits.tnet"), "--as-is", "small.png"], &["1x2x3", "28x28x1"]);
}

#[test]
fn a_model_is_given_only_what_it_knows() {
    let folder = workspace();
    let digits = shipped_model("digits.tnet");
    let refused = |args: &[&str], parts: &[&str]| fails(folder.path(), args, parts);
    write(folder.path().join("small.csv"), "1,2,3,0\n4,5,6,1\n7,8,9,0\n1,2,3,1\n");
    refused(&["eval", &digits, "--data", "small.csv"], &["digits.tnet", "takes 784 values (28x28x1)", "has 3 (1x3x1)"]);
    let wide = |class: usize| format!("{}{class}\n", "7,".repeat(784));
    write(folder.path().join("classes.csv"), (0..12).map(|class| wide(class).repeat(2)).collect::<String>());
    refused(&["eval", &digits, "--data", "classes.csv"], &["digits.tnet", "10 outputs (0, 1, 2", "images of class 10"]);
    let named = |name: &str| format!("{}{name}\n", "7,".repeat(784)).repeat(2);
    write(folder.path().join("named.csv"), named("3") + &named("cat"));
    refused(&["eval", &digits, "--data", "named.csv"], &["10 outputs (0, 1, 2", "images of class cat"]);
    // Classes that the model knows by name need not be all of its classes, nor in its order.
    write(folder.path().join("some.csv"), named("9") + &named("7"));
    let report = json(&succeeds(folder.path(), &["eval", &digits, "--data", "some.csv", "--part", "all", "--json"]));
    let row =
        |class: usize| report["confusion"][class].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!([7, 8, 9].map(row), [2, 0, 2]);
    refused(&["train", "s0", "--data", "small.csv", "--out", "x.tnet"], &["10 outputs", "2 classes"]);
    refused(&["train", "digits", "--data", "small.csv", "--shape", "0x3"], &["--shape", "28x28"]);
    refused(&["data", "tiny", "--shape", "14x14"], &["--shape", "tiny"]);
    refused(&["data", "tiny", "--label", "1"], &["--label", "tiny"]);
}
