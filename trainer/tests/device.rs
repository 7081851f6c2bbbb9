//! `thumbnet device` against devices of this test's own: good ones, forgetful ones and silent ones. The firmware's is spoken to
//! in `cargo xtask test`.

mod common;

use common::{fails, json, succeeds, workspace};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use thumbnet_protocol::{
    Answer, CHUNK, Command, Floats, Info, MAX_FRAME, NO_NUMBER, Receiver, Refusal, Reply, Request, VERSION, decode,
    encode,
};

const INFO: Info<'static> = Info {
    protocol: VERSION,
    model: "fake",
    model_bytes: 12_345,
    shape: [28, 28, 1],
    outputs: 10,
    labels: 10,
    scratch_bytes: 768,
    upload_bytes: 65_536,
    stack_bytes: 2_048,
    kernels: "none",
};

/// A device that answers each request with the frames that `answers` makes of it; gives its port.
fn device(mut answers: impl FnMut(Request<'_>) -> Vec<Vec<u8>> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("tcp:{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut receiver = Receiver::new();
        for byte in BufReader::new(&stream).bytes().map_while(Result::ok) {
            let Some(message) = receiver.push(byte) else { continue };
            let request = decode(message.expect("nothing is lost on the way")).expect("a request");
            for frame in answers(request) {
                (&stream as &TcpStream).write_all(&frame).unwrap();
            }
        }
    });
    port
}

fn frame(number: u32, reply: Reply<'_>) -> Vec<u8> {
    encode(&Answer { number, requests: number, reply }, &mut [0; MAX_FRAME]).unwrap().to_vec()
}

/// The class that the tiny data set has in an image, found as a device would: where the bright square begins.
fn class(input: &[u8]) -> u16 {
    (input[4 * 28..5 * 28].iter().position(|pixel| *pixel > 0).unwrap() / 2 - 2) as u16
}

/// What a good device answers.
fn reply<'r>(command: Command<'_>, outputs: &'r [f32]) -> Reply<'r> {
    match command {
        Command::Info | Command::UseUpload => Reply::Info(INFO),
        Command::Classify { input } => Reply::Classified { class: class(input), outputs: Floats::new(outputs) },
        Command::StartUpload { .. } => Reply::Stored { bytes: 0 },
        Command::Upload { offset, data } => Reply::Stored { bytes: offset + data.len() as u32 },
    }
}

fn eval(folder: &Path, port: &str) -> serde_json::Value {
    json(&succeeds(folder, &["device", "eval", "--port", port, "--data", "tiny", "--json", "--timeout", "500"]))
}

#[test]
fn every_image_is_classified_and_counted() {
    let folder = workspace();
    let report =
        eval(folder.path(), &device(|request| vec![frame(request.number, reply(request.command, &[0.5; 10]))]));
    assert_eq!((&report["images"], &report["correct"], &report["retries"]), (&40.into(), &40.into(), &0.into()));
    let answers = report["answers"].as_array().unwrap();
    assert_eq!(answers[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1].map(serde_json::Value::from));
    assert!(report["requests_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(report["unlike_desktop"], serde_json::Value::Null);

    let wrong = device(|request| {
        let reply = match request.command {
            Command::Classify { .. } => Reply::Classified { class: 3, outputs: Floats::new(&[]) },
            _ => Reply::Info(INFO),
        };
        vec![frame(request.number, reply)]
    });
    let text = succeeds(folder.path(), &["device", "eval", "--port", &wrong, "--data", "tiny", "--limit", "20"]);
    assert!(text.contains("accuracy 10.00 % (2 of 20 images)") && text.contains("model fake (none)"), "{text}");
}

#[test]
fn what_is_lost_is_sent_again_and_what_is_late_is_dropped() {
    let folder = workspace();
    let (mut turn, mut last) = (0, None);
    let port = device(move |request| {
        turn += 1;
        let good = frame(request.number, reply(request.command, &[]));
        let again = last.replace(request.number) == Some(request.number);
        let mut damaged = good.clone();
        damaged[2] ^= 0x21;
        // An answer to another request, with another class.
        let late = frame(request.number.wrapping_sub(1), Reply::Classified { class: 77, outputs: Floats::new(&[]) });
        match turn % 7 {
            _ if again => vec![good],
            1 => vec![],                                                                        // lost
            3 => vec![damaged],                                                                 // damaged
            4 => vec![frame(NO_NUMBER, Reply::Refused(Refusal::Unreadable))], // the request was damaged
            5 => vec![late, b"noise".to_vec(), good],                         // late, and noise
            6 => vec![good[..good.len() / 2].to_vec(), b"\0\0\0".to_vec(), good.clone(), good], // half, and twice
            _ => vec![good],
        }
    });
    let report = eval(folder.path(), &port);
    assert_eq!((&report["images"], &report["correct"]), (&40.into(), &40.into()));
    assert!(report["retries"].as_u64().unwrap() >= 12, "{}", report["retries"]);
}

#[test]
fn a_model_arrives_in_order_and_is_compared() {
    let folder = workspace();
    common::train_tiny(folder.path(), "tiny.tnet");
    let model = std::fs::read(folder.path().join("tiny.tnet")).unwrap();
    let (expected, mut received) = (model.clone(), Vec::<u8>::new());
    let port = device(move |request| {
        match request.command {
            Command::StartUpload { name, bytes } => assert_eq!((name, bytes as usize), ("tiny", expected.len())),
            Command::Upload { offset, data } => {
                assert_eq!(offset as usize, received.len());
                assert!(data.len() == CHUNK || received.len() + data.len() == expected.len());
                received.extend(data);
            }
            Command::UseUpload => assert!(received == expected),
            _ => {}
        }
        vec![frame(request.number, reply(request.command, &[]))]
    });
    let eval = ["device", "eval", "--port", &port, "--data", "tiny", "--json", "--model", "tiny.tnet"];
    let report = json(&succeeds(folder.path(), &eval));
    assert_eq!((&report["unlike_desktop"], &report["correct"]), (&0.into(), &40.into()));
    // What is no model is not sent.
    std::fs::write(folder.path().join("broken.tnet"), &model[..1000]).unwrap();
    let eval = ["device", "eval", "--port", "tcp:127.0.0.1:1", "--data", "tiny", "--model", "broken.tnet"];
    fails(folder.path(), &eval, &["broken.tnet", "not a usable model"]);
}

/// Devices are sent bytes: of other numbers, where each lies in the range that the model was trained on.
#[test]
fn numbers_are_sent_as_bytes() {
    let folder = workspace();
    let line = |index: usize| {
        format!("{},{},{}\n", [-2.0, 8.0][index % 2], [0.5, -2.0][index % 2], ["low", "high"][index % 2])
    };
    std::fs::write(folder.path().join("numbers.csv"), (0..20).map(line).collect::<String>()).unwrap();
    let recipe =
        "description = \"test\"\nseed = 1\nepochs = 9\nbatch = 4\nlearning_rate = 0.1\nloss = \"cross-entropy\"
        [[layers]]\ntype = \"dense\"\noutputs = 2\ninit = \"he-normal\"";
    std::fs::write(folder.path().join("mine.toml"), recipe).unwrap();
    succeeds(folder.path(), &["train", "mine.toml", "--data", "numbers.csv", "--quiet"]);
    let port = device(|request| {
        let answer = match request.command {
            Command::Classify { input: [0, 64] } => Reply::Classified { class: 1, outputs: Floats::new(&[]) },
            Command::Classify { input: [255, 0] } => Reply::Classified { class: 0, outputs: Floats::new(&[]) },
            Command::Classify { input } => panic!("sent {input:?}"),
            Command::Info | Command::UseUpload => Reply::Info(Info { shape: [1, 2, 1], outputs: 2, ..INFO }),
            other => reply(other, &[]),
        };
        vec![frame(request.number, answer)]
    });
    let eval = ["device", "eval", "--port", &port, "--data", "numbers.csv", "--json"];
    fails(folder.path(), &eval, &["--model", "bytes"]);
    let report = json(&succeeds(folder.path(), &[&eval[..], &["--model", "mine.tnet"]].concat()));
    assert_eq!((&report["correct"], &report["images"], &report["unlike_desktop"]), (&4.into(), &4.into(), &0.into()));
}

#[test]
fn a_device_is_described() {
    let folder = workspace();
    let good = || device(|request| vec![frame(request.number, reply(request.command, &[]))]);
    let text = succeeds(folder.path(), &["device", "info", "--port", &good()]);
    assert!(text.starts_with("model fake, input 28x28x1\n") && text.contains("12,345 bytes of the model"), "{text}");
    let info = json(&succeeds(folder.path(), &["device", "info", "--port", &good(), "--json"]));
    assert_eq!(
        (&info["model_bytes"], &info["shape"][1], &info["protocol"]),
        (&12_345.into(), &28.into(), &VERSION.into())
    );
}

#[test]
fn devices_that_do_not_do_it_are_named() {
    let folder = workspace();
    let eval = |port: &str, parts: &[&str]| {
        let quick = ["--timeout", "400", "--attempts", "3"];
        let args = [&["device", "eval", "--port", port, "--data", "tiny"][..], &quick].concat();
        fails(folder.path(), &args, &[&[port], parts].concat());
    };
    eval(&device(|_| vec![]), &["no answer to 3 requests within 0.4 s"]);
    eval(&device(|_| vec![b"hello\n".to_vec()]), &["no answer"]);
    let foreign = encode(&[200u8; 9], &mut [0; MAX_FRAME]).unwrap().to_vec();
    eval(&device(move |_| vec![foreign.clone()]), &[&format!("not version {VERSION} of the protocol")]);
    eval("tcp:127.0.0.1:1", &["cannot be opened"]);
    eval("tcp:nonsense", &["cannot be opened"]);
    eval("no-such-serial-port", &["cannot be opened"]);
    let info = |change: fn(Info<'static>) -> Info<'static>| {
        device(move |request| vec![frame(request.number, Reply::Info(change(INFO)))])
    };
    eval(&info(|info| Info { protocol: 9, ..info }), &[&format!("version 9 of the protocol, expected {VERSION}")]);
    eval(&info(|info| Info { shape: [5, 5, 3], ..info }), &["takes 75 values", "an image here has 784"]);
    eval(&info(|info| info), &["an answer of the wrong kind"]);
    let refusing = device(|request| {
        let refusal = Refusal::TooLarge { what: "bytes of memory", needed: 10, available: 9 };
        vec![frame(request.number, Reply::Refused(refusal))]
    });
    eval(&refusing, &["refused", "needs 10 bytes of memory, but the device has 9"]);
}

#[test]
fn a_connection_that_ends_is_an_error() {
    let folder = workspace();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("tcp:{}", listener.local_addr().unwrap());
    thread::spawn(move || drop(listener.accept().unwrap()));
    // Closed for reading, or already for writing: which of them is noticed first is the operating system's.
    fails(folder.path(), &["device", "info", "--port", &port], &[&port]);
}
