//! `thumbnet device` against the firmware's `device` in QEMU: a conversation from end to end, over a good wire and a bad one; and
//! `cargo xtask soak`, a long one over a bad one.

use crate::{command, digits, firmware};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};
use thumbnet::{AlignedBuf, Model};
use thumbnet_protocol::{MAX_FRAME, Request, encode};
use thumbnet_trainer::data::{DataSet, mnist};
use thumbnet_trainer::device::{Device, DeviceInfo, Options};
use thumbnet_trainer::random::RandomState;

/// Images of each evaluation: QEMU's UART takes about ten a second.
const IMAGES: usize = 60;

/// An evaluation takes some ten seconds; one that hangs is ended.
const LIMIT: Duration = Duration::from_secs(120);

/// The model that the device starts with, and the one that is sent to it.
const BUILT_IN: &str = "digits";
const UPLOADED: &str = "s1-fixed-int8";

/// The noisy wire loses or damages one byte in so many: about one request in three, and one answer in forty.
const NOISE: usize = 2503;

/// The whole conversation.
pub(crate) fn over_the_uart() -> Result<()> {
    let images = images(IMAGES)?;
    let thumbnet = thumbnet()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let _emulator = Emulator::start(firmware::device_emulator(port)?, port)?;
    let eval = |port, more: &[&str]| evaluate(&thumbnet, port, more);
    let (digits, small) = (expected(BUILT_IN, &images)?, expected(UPLOADED, &images)?);
    ensure!(digits != small, "the two models must be told apart by their answers");

    let clean = eval(port, &[])?;
    ensure!(clean.model == BUILT_IN && clean.answers == digits && clean.retries == 0, "on a good wire: {clean:?}");

    send_garbage(port)?;
    let noisy = eval(noisy_wire(port)?, &["--timeout", "1000", "--attempts", "20"])?;
    ensure!(noisy.answers == digits, "on a noisy wire: {noisy:?}");
    ensure!(noisy.retries > 0, "no request was lost: this wire is not noisy");
    // Had the device started anew, it would have begun to count again.
    ensure!(noisy.requests > clean.requests, "{} requests, then {}", clean.requests, noisy.requests);

    let folder = tempfile::tempdir()?;
    let file = folder.path().join(UPLOADED).with_extension("tnet");
    std::fs::write(&file, &**digits::read_model(UPLOADED)?)?;
    let path = file.to_str().context("the folder for temporary files has a plain name")?;
    let uploaded = eval(port, &["--model", path])?;
    ensure!(uploaded.model == UPLOADED && uploaded.answers == small, "after an upload: {uploaded:?}");

    refuse(port, &images)?;
    send_garbage(port)?;
    let last = eval(port, &[])?;
    ensure!(last.model == uploaded.model && last.answers == small, "after refusals and garbage: {last:?}");
    ensure!(last.requests > uploaded.requests, "the device started anew");
    Ok(())
}

/// Has the device classify images for `minutes` over the noisy wire, and now and then take a new model, refuse what is none, or meet
/// garbage. Every answer must be right, and the device use no more stack at the end than when it had done everything once.
pub(crate) fn soak(minutes: f32) -> Result<()> {
    // Small ones: of a large one the upload would take most of the time.
    const MODELS: [&str; 2] = ["digits-nano", "digits-tiny"];
    let images = images(10_000)?;
    let models = MODELS.map(|name| Ok((name, digits::read_model(name)?, expected(name, &images)?)));
    let models = models.into_iter().collect::<Result<Vec<_>>>()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let _emulator = Emulator::start(firmware::device_emulator(port)?, port)?;
    let (start, mut last, mut retries) = (Instant::now(), Turn::default(), 0);
    for (turn, (name, model, expected)) in models.iter().cycle().enumerate() {
        let first = turn * Turn::IMAGES;
        let now = Turn::of(port, name, model, &images, expected, first)?;
        retries += now.retries;
        println!(
            "{:>5.0} s  {} images, all right; {retries} requests sent again; {} requests answered, {} bytes of stack",
            start.elapsed().as_secs_f32(),
            first + Turn::IMAGES,
            now.requests,
            now.stack_bytes
        );
        ensure!(now.requests > last.requests, "the device started anew");
        let settled = turn > models.len();
        ensure!(!settled || now.stack_bytes == last.stack_bytes, "it were {} bytes of stack", last.stack_bytes);
        last = now;
        if settled && start.elapsed().as_secs_f32() > 60.0 * minutes {
            break;
        }
    }
    Ok(())
}

/// What a turn of the soak found.
#[derive(Default)]
struct Turn {
    requests: u32,
    retries: u64,
    stack_bytes: u32,
}

impl Turn {
    const IMAGES: usize = 200;

    /// Garbage, refusals, a new model, and images from number `first` on.
    fn of(port: u16, name: &str, model: &[u8], images: &DataSet, expected: &[usize], first: usize) -> Result<Self> {
        send_garbage(port)?;
        refuse(port, images)?;
        let mut device = open(noisy_wire(port)?, Duration::from_millis(500))?;
        device.upload(name, model, drop)?;
        let mut requests = 0;
        for index in (first..first + Self::IMAGES).map(|index| index % images.len()) {
            let answer = device.classify(images.bytes(index).context("MNIST is bytes")?)?;
            let (found, right) = (usize::from(answer.class), expected[index]);
            ensure!(found == right, "image {index} is {found} to the device, and {right} to the desktop");
            requests = answer.requests;
        }
        Ok(Turn { requests, stack_bytes: device.info()?.stack_bytes, retries: device.retries() })
    }
}

/// A connection that gives up after many attempts: some are lost on a noisy wire, and a busy machine emulates slowly.
fn open(port: u16, timeout: Duration) -> Result<Device> {
    let port = format!("tcp:127.0.0.1:{port}");
    Ok(Device::open(Options { port, baud: 0, timeout, attempts: 60 })?)
}

fn images(count: usize) -> Result<DataSet> {
    let mut images = mnist::test(&command::root().join("data/mnist"))?;
    images.truncate(count);
    Ok(images)
}

/// What a model answers on this machine.
fn expected(name: &str, images: &DataSet) -> Result<Vec<usize>> {
    let blob = digits::read_model(name)?;
    let model = Model::load(&blob)?;
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    (0..images.len()).map(|index| Ok(model.classify(images.example(index), &mut scratch)?.class)).collect()
}

/// The `thumbnet` command, built as the workspace's tests have it, which may be there already.
fn thumbnet() -> Result<PathBuf> {
    let mut build = command::cargo();
    build.args(["test", "--workspace", "--no-run", "--test", "device", "--message-format", "json-render-diagnostics"]);
    let output = command::output(&mut build)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout)?;
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.find(|message| {
        message["target"]["name"] == "thumbnet"
            && message["executable"].is_string()
            && message["profile"]["test"] == false
    });
    let program = program.context("cargo names the programs that it builds")?;
    Ok(PathBuf::from(program["executable"].as_str().unwrap_or_default()))
}

/// What `thumbnet device eval` found.
#[derive(Debug)]
struct Evaluation {
    model: String,
    answers: Vec<usize>,
    retries: u64,
    requests: u64,
}

fn evaluate(thumbnet: &PathBuf, port: u16, more: &[&str]) -> Result<Evaluation> {
    let mut eval = Command::new(thumbnet);
    eval.current_dir(command::root()).args(["device", "eval", "--json", "--port", &format!("tcp:127.0.0.1:{port}")]);
    eval.args(["--limit", &IMAGES.to_string()]).args(more);
    let (status, output) = command::output_within(LIMIT, eval)?;
    ensure!(status.success(), "{status}\n{output}");
    let report: Value = serde_json::from_str(&output)?;
    let answers = report["answers"].as_array().context("a list of answers")?;
    let number = |name: &str| report[name].as_u64().with_context(|| format!("{name} is a number"));
    println!(
        "{} of {} correct, {} unlike the desktop, {:.1} requests/s, {} retries",
        report["correct"],
        report["images"],
        report["unlike_desktop"],
        report["requests_per_second"].as_f64().unwrap_or_default(),
        report["retries"]
    );
    Ok(Evaluation {
        model: report["device"]["model"].as_str().context("the model has a name")?.to_owned(),
        answers: answers.iter().map(|answer| answer.as_u64().map_or(usize::MAX, |class| class as usize)).collect(),
        retries: number("retries")?,
        requests: number("requests")?,
    })
}

/// Sends what is no request: noise, half a request, a frame without an end, and many empty ones.
fn send_garbage(port: u16) -> Result<()> {
    let mut rng = RandomState::new(3);
    let noise = (0..3000).map(|_| (rng.random_sample() * 256.0) as u8).collect::<Vec<_>>();
    let mut buffer = [0; MAX_FRAME];
    let request = Request { number: 1, command: thumbnet_protocol::Command::Classify { input: &[1; 784] } };
    let frame = encode(&request, &mut buffer).context("a request fits into a frame")?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(&[&noise[..], &[0x55; 2 * MAX_FRAME], &[0; 500], &frame[..frame.len() / 2]].concat())?;
    // The device answers some of it; nobody reads that.
    thread::sleep(Duration::from_secs(1));
    Ok(stream.shutdown(Shutdown::Both)?)
}

/// What the device must refuse, and go on with the model that it has.
fn refuse(port: u16, images: &DataSet) -> Result<()> {
    let mut device = open(port, Duration::from_secs(3))?;
    let before = device.info()?;
    let image = images.bytes(0).context("MNIST is bytes")?;
    let class = device.classify(image)?.class;
    let mut damaged = digits::read_model(UPLOADED)?;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let refusals = [
        ("an input of another length", device.classify(&image[1..]).map(drop), "783"),
        ("a damaged model", device.upload("damaged", &damaged, drop).map(drop), "not a usable model"),
        ("a model that is too large", device.upload("large", &vec![0; 1 << 20], drop).map(drop), "1048576"),
    ];
    for (what, outcome, reason) in refusals {
        let error = outcome.err().with_context(|| format!("{what} was not refused"))?.to_string();
        ensure!(error.contains("refused") && error.contains(reason), "{what}: {error}");
        println!("{what}: {error}");
    }
    // Some take more stack than what came before.
    let after = DeviceInfo { stack_bytes: before.stack_bytes, ..device.info()? };
    ensure!(after == before && device.classify(image)?.class == class, "a refusal changed the model");
    Ok(())
}

/// A wire to `port` that loses a byte now and then, or damages it, in both directions; gives its own port. It takes one
/// connection.
fn noisy_wire(port: u16) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = listener.local_addr()?.port();
    thread::spawn(move || -> Result<()> {
        let (near, _) = listener.accept()?;
        let far = TcpStream::connect(("127.0.0.1", port))?;
        let back = (far.try_clone()?, near.try_clone()?);
        thread::spawn(move || copy_with_noise(back.0, back.1));
        copy_with_noise(near, far)
    });
    Ok(own)
}

/// Copies until one end closes, and then closes the other.
fn copy_with_noise(mut from: TcpStream, mut to: TcpStream) -> Result<()> {
    let (mut buffer, mut passed) = ([0; 1024], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut bytes = Vec::with_capacity(count);
        for byte in &buffer[..count] {
            passed += 1;
            match passed % (2 * NOISE) {
                0 => {}
                NOISE => bytes.push(byte ^ 0x10),
                _ => bytes.push(*byte),
            }
        }
        to.write_all(&bytes)?;
    }
    Ok(to.shutdown(Shutdown::Both)?)
}

/// QEMU, which ends when this is dropped.
struct Emulator(Child);

impl Emulator {
    /// Starts it and waits until its UART can be connected to.
    fn start(mut qemu: Command, port: u16) -> Result<Self> {
        let line = command::show(&qemu);
        let mut emulator = Self(qemu.spawn().with_context(|| format!("cannot start {line}"))?);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = emulator.0.try_wait()? {
                anyhow::bail!("{status}: {line}");
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "no UART after 20 s: {line}");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
