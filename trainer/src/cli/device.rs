//! `thumbnet device`.

use super::{DataArgs, ModelFile, grouped, print, print_json};
use clap::{Subcommand, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thumbnet::layer::InputSpec;
use thumbnet::{AlignedBuf, Model};
use thumbnet_trainer::data::{DataSet, Values};
use thumbnet_trainer::device::{Device, DeviceInfo, Options};
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::evaluate;

/// Speak to a device that runs a model, over a serial port or TCP.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Info(InfoArgs),
    Eval(EvalArgs),
}

/// Print what the device tells about itself and its model
#[derive(Debug, clap::Args)]
struct InfoArgs {
    #[command(flatten)]
    port: PortArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Have the device classify test images: accuracy, requests per second
#[derive(Debug, clap::Args)]
struct EvalArgs {
    #[command(flatten)]
    port: PortArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Send the first N test images only
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Upload this model first; its answers are also compared with those that it gives here
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Print JSON, with the answer to every image
    #[arg(long)]
    json: bool,
}

/// Where the device is.
#[derive(Debug, clap::Args)]
struct PortArgs {
    /// A serial port (/dev/ttyACM0, COM3), or tcp:HOST:PORT
    #[arg(long)]
    port: String,
    /// Bits per second of a serial port
    #[arg(long, value_name = "N", default_value_t = 115_200, value_parser = value_parser!(u32).range(1..))]
    baud: u32,
    /// Wait so long for an answer before a request is sent again
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 3000, value_parser = value_parser!(u64).range(1..))]
    timeout: u64,
    /// Send a request so many times before the device counts as gone
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    attempts: u32,
}

impl PortArgs {
    fn open(&self) -> Result<Device> {
        let timeout = Duration::from_millis(self.timeout);
        Device::open(Options { port: self.port.clone(), baud: self.baud, timeout, attempts: self.attempts })
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Info(args) => info(args),
        Command::Eval(args) => eval(args),
    }
}

fn info(args: &InfoArgs) -> Result<()> {
    let info = args.port.open()?.info()?;
    if args.json { print_json(&info) } else { print(&describe(&info)) }
}

fn describe(info: &DeviceInfo) -> String {
    let [height, width, channels] = info.shape;
    let row = |value: String, what: &str| format!("{value:>12} {what}\n");
    format!("model {}, input {height}x{width}x{channels}\nkernels: {}\n\n", info.model, info.kernels)
        + &row(grouped(info.outputs.into()), "outputs")
        + &row(grouped(info.labels.into()), "labels")
        + &row(grouped(info.model_bytes.into()), "bytes of the model")
        + &row(grouped(info.scratch_bytes.into()), "bytes of scratch memory")
        + &row(grouped(info.upload_bytes.into()), "bytes of room for another model")
        + &row(grouped(info.stack_bytes.into()), "bytes of stack at most, so far")
        + &row(info.protocol.to_string(), "version of the protocol")
}

/// How well a device does.
#[derive(Debug, Serialize)]
struct Report {
    device: DeviceInfo,
    images: usize,
    correct: usize,
    /// The share of correct answers, 0 to 1.
    accuracy: f64,
    /// How many answers are not those that the uploaded model gives here.
    unlike_desktop: Option<usize>,
    seconds: f64,
    requests_per_second: f64,
    /// How many times a request was sent again.
    retries: u64,
    /// How many requests the device has answered since it started.
    requests: u32,
    /// The class that the device gave to each image.
    answers: Vec<u16>,
}

fn eval(args: &EvalArgs) -> Result<()> {
    let mut images = args.data.source()?.test()?;
    images.truncate(args.limit.map_or(usize::MAX, NonZeroUsize::get));
    let file = args.model.as_deref().map(ModelFile::read).transpose()?;
    let images = as_bytes(images, file.as_ref())?;
    let here = file.as_ref().map(|file| answers_here(file, &images)).transpose()?;
    let mut device = args.port.open()?;
    let info = match &file {
        Some(file) => upload(&mut device, file, args.json)?,
        None => device.info()?,
    };
    if info.input_len() != images.size() {
        let problem =
            format!("the model on it takes {} values, but an image here has {}", info.input_len(), images.size());
        return Err(Error::Device { port: args.port.port.clone(), problem });
    }
    let report = measure(&mut device, info, &images, here.as_deref(), args.json)?;
    if args.json { print_json(&report) } else { print(&summary(&report)) }
}

/// The examples in the bytes that devices are sent, with the numbers of the model's classes if the model is known.
fn as_bytes(mut images: DataSet, file: Option<&ModelFile>) -> Result<DataSet> {
    let Some(file) = file else {
        return match images.values {
            Values::Bytes(_) => Ok(images),
            Values::Floats(_) => Err(Error::Option(
                "--model: the examples are no bytes, which devices are sent, and only the model says what a byte stands for"
                    .to_owned(),
            )),
        };
    };
    let model = file.model()?;
    evaluate::check_shape(&model, &images).map_err(|problem| file.error(problem))?;
    images.labels = evaluate::labels_for(&model, &images).map_err(|problem| file.error(problem))?;
    let InputSpec { scale, offset, .. } = *model.input();
    if let Values::Floats(values) = images.values_for(model.input()).into_owned() {
        let nearest = |value: &f32| ((value - offset) / scale).round() as u8;
        images.values = Values::Bytes(values.iter().map(nearest).collect());
    }
    Ok(images)
}

/// What the model answers on this machine.
fn answers_here(file: &ModelFile, images: &DataSet) -> Result<Vec<u16>> {
    let model: Model<'_> = file.model()?;
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let answer = |index| {
        let found = model.classify(images.example(index), &mut scratch).map_err(|e| file.error(e.to_string()))?;
        Ok(found.class as u16)
    };
    (0..images.len()).map(answer).collect()
}

fn upload(device: &mut Device, file: &ModelFile, quiet: bool) -> Result<DeviceInfo> {
    let bar = bar(file.bytes.len(), "uploading {wide_bar:.cyan/blue} {bytes}/{total_bytes} {bytes_per_sec}", quiet);
    let name = file.path.file_stem().unwrap_or_default().to_string_lossy();
    let info = device.upload(&name, &file.bytes, |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    info
}

fn measure(
    device: &mut Device,
    info: DeviceInfo,
    images: &DataSet,
    here: Option<&[u16]>,
    quiet: bool,
) -> Result<Report> {
    let bar = bar(images.len(), "classifying {wide_bar:.cyan/blue} {pos}/{len} {msg}", quiet);
    let start = Instant::now();
    let (mut answers, mut correct, mut requests) = (Vec::with_capacity(images.len()), 0, 0);
    for (index, label) in images.labels.iter().enumerate() {
        let found =
            device.classify(images.bytes(index).expect("bytes as made above")).inspect_err(|_| bar.abandon())?;
        correct += usize::from(found.class == *label);
        requests = found.requests;
        answers.push(found.class);
        bar.set_message(format!("accuracy {:.2} %", 100.0 * correct as f64 / answers.len() as f64));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Report {
        device: info,
        images: images.len(),
        correct,
        accuracy: correct as f64 / images.len() as f64,
        unlike_desktop: here.map(|here| here.iter().zip(&answers).filter(|(here, there)| here != there).count()),
        seconds,
        requests_per_second: images.len() as f64 / seconds,
        retries: device.retries(),
        requests,
        answers,
    })
}

fn bar(length: usize, template: &str, quiet: bool) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(length as u64) };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is well formed"))
}

fn summary(report: &Report) -> String {
    let Report { device, images, correct, accuracy, seconds, requests_per_second, retries, requests, .. } = report;
    let mut text = format!(
        "model {} ({})\naccuracy {:.2} % ({correct} of {images} images)\n",
        device.model,
        device.kernels,
        100.0 * accuracy
    );
    if let Some(unlike) = report.unlike_desktop {
        text += &format!("{unlike} answers unlike those of the same model here\n");
    }
    text + &format!(
        "{requests_per_second:.1} requests/s over {seconds:.1} s, {retries} retries; {} requests since the device started\n",
        grouped((*requests).into())
    )
}
