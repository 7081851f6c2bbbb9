//! thumbnet as a contestant of a benchmark harness, beside other libraries in the same interleaved run.
//!
//! The harness writes networks, inputs and expected outputs into a folder as `.tsv` and `.f32` files ([`data`] reads
//! them) and runs `peer_harness infer --data DIR --budget SECONDS` and `peer_harness gemm …`; each measurement is a
//! `RESULT` line of tab-separated values: peer, kind, workload, batch or multiply-adds, least and median nanoseconds per
//! call, largest error. `docs/performance.md` has the results and the whole command.

mod data;
mod network;
mod timing;

use clap::{Parser, Subcommand};
use data::{Data, Result, Shape};
use network::Network;
use std::hint::black_box;
use std::path::PathBuf;
use thumbnet::kernels::{Panels, dense, pack};
use thumbnet::{AlignedBuf, Backend, Model};
use timing::Timing;

/// The batches of the harness; a call of the last takes all the images of its data.
const BATCHES: [usize; 3] = [1, 64, 1000];

/// How many bytes of scratch memory stay in the second-level cache of nearly every processor, beside the weights.
const CACHED_SCRATCH: usize = 512 << 10;

/// Runs this library as a contestant of the peer harness.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The folder with the harness's data
    #[arg(long, global = true, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Seconds per measurement, after a quarter of that to warm up
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 0.4)]
    budget: f64,
    /// Run on this backend instead of the fastest
    #[arg(long, global = true, value_name = "NAME")]
    backend: Option<String>,
    /// Run networks with int8 weights and activations, calibrated with the harness's inputs
    #[arg(long, global = true)]
    int8: bool,
    /// How many images of a batch to compute at a time [default: up to 48, as many as the second-level cache has room for]
    #[arg(long, global = true, value_name = "IMAGES")]
    at_a_time: Option<usize>,
    /// Measure this network or product only
    #[arg(long, global = true, value_name = "NAME")]
    only: Option<String>,
}

impl Arguments {
    /// How many images of a batch to have scratch memory for.
    fn at_a_time(&self, model: &Model<'_>) -> usize {
        let room = CACHED_SCRATCH / model.scratch_bytes().max(1);
        self.at_a_time.unwrap_or(room.min(48)).max(1)
    }

    /// Whether a workload is to be measured.
    fn wants(&self, workload: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == workload)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Whole networks, at each batch size
    Infer,
    /// Matrix products with weights packed beforehand
    Gemm,
    /// Not here: the trainer is a program of its own
    Train {
        /// Ignored
        #[arg(long)]
        mnist: Option<PathBuf>,
    },
}

fn main() {
    let arguments = Arguments::parse();
    if let Err(problem) = run(&arguments) {
        eprintln!("{problem}");
        std::process::exit(2);
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let contestant = Contestant::new(arguments)?;
    match arguments.command {
        Command::Infer => contestant.infer(),
        Command::Gemm => contestant.gemm(),
        Command::Train { .. } => {
            for (network, batch) in [("A1", 32), ("A3", 64)] {
                println!("SKIP\t{}\t{network}\t{batch}\tthe trainer has its own command", contestant.name);
            }
            Ok(())
        }
    }
}

struct Contestant<'a> {
    name: String,
    backend: Backend,
    arguments: &'a Arguments,
}

impl<'a> Contestant<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        let thumbnet = if arguments.int8 { "thumbnet-int8" } else { "thumbnet" };
        let (name, backend) = match &arguments.backend {
            None => (thumbnet.to_owned(), Backend::best()),
            Some(name) => {
                let known = || Backend::available().map(Backend::name).collect::<Vec<_>>().join(", ");
                let backend = Backend::from_name(name)
                    .ok_or_else(|| format!("--backend {name}: this machine has {}", known()))?;
                (format!("{thumbnet}-{name}"), backend)
            }
        };
        Ok(Self { name, backend, arguments })
    }

    /// Prints a measurement as the harness reads it; `size` is the batch or the number of multiply-adds.
    fn report(&self, kind: &str, workload: &str, size: usize, Timing { least, median }: Timing, error: f64) {
        println!("RESULT\t{}\t{kind}\t{workload}\t{size}\t{least:.1}\t{median:.1}\t{error:.3e}", self.name);
    }

    fn infer(&self) -> Result<()> {
        let data = Data::read(&self.arguments.data)?;
        for name in data.networks()?.iter().filter(|name| self.arguments.wants(name)) {
            let network = match self.arguments.int8 {
                true => Network::read_int8(&data, name, &data.tensor("x")?)?,
                false => Network::read(&data, name)?,
            };
            let model = network.model()?.with_backend(self.backend);
            let (inputs, expected) = (data.tensor("x")?, data.tensor(&format!("{name}.y"))?);
            for batch in BATCHES {
                let inputs = data::first(&inputs, batch * model.input_len(), "x")?;
                let expected = data::first(&expected, batch * model.output_len(), name)?;
                let (timing, error) = self.network(&model, inputs, expected)?;
                self.report("infer", name, batch, timing, error);
            }
        }
        Ok(())
    }

    /// Times a network on a batch, and compares its outputs with the expected ones.
    fn network(&self, model: &Model<'_>, inputs: &[f32], expected: &[f32]) -> Result<(Timing, f64)> {
        let budget = self.arguments.budget;
        if inputs.len() == model.input_len() {
            let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
            let error = largest_error(model.run(inputs, &mut scratch)?, expected);
            let timing = timing::time(budget, || {
                black_box(model.run(black_box(inputs), &mut scratch).is_ok());
            });
            return Ok((timing, error));
        }
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes() * self.arguments.at_a_time(model));
        let mut outputs = vec![0.0; expected.len()];
        model.run_batch(inputs, &mut scratch, &mut outputs)?;
        let error = largest_error(&outputs, expected);
        let timing = timing::time(budget, || {
            black_box(model.run_batch(black_box(inputs), &mut scratch, &mut outputs).is_ok());
        });
        Ok((timing, error))
    }

    fn gemm(&self) -> Result<()> {
        for shape in data::shapes(&self.arguments.data)?.iter().filter(|shape| self.arguments.wants(&shape.name)) {
            let (timing, error) = self.product(shape)?;
            self.report("gemm", &shape.name, shape.m * shape.k * shape.n, timing, error);
        }
        Ok(())
    }

    /// Times `C = A · B`, where B was packed beforehand.
    fn product(&self, &Shape { ref name, m, k, n }: &Shape) -> Result<(Timing, f64)> {
        let (a, b, mut c) = (data::operand(m * k, 1), data::operand(k * n, 2), vec![0.0; m * n]);
        let too_large = || format!("{name}: {k} x {n} is beyond the format's limits");
        let bytes = pack::tensor_bytes::<f32>(k.try_into()?, n.try_into()?).ok_or_else(too_large)?;
        let mut panels = AlignedBuf::zeroed(bytes as usize);
        pack::pack::<f32>(&b, &[], n, &mut panels).ok_or_else(too_large)?;
        let panels = Panels::<f32>::new(&panels, k, n).ok_or_else(too_large)?;
        let mut multiply = || dense(self.backend, black_box(&a), panels, f32::NEG_INFINITY, &mut c);
        multiply();
        let timing = timing::time(self.arguments.budget, multiply);
        let mut error = 0.0f64;
        for row in (0..m).step_by((m / 50).max(1)) {
            for column in (0..n).step_by((n / 40).max(1)) {
                let products = (0..k).map(|i| f64::from(a[row * k + i]) * f64::from(b[i * n + column]));
                error = error.max((products.sum::<f64>() - f64::from(c[row * n + column])).abs());
            }
        }
        Ok((timing, error))
    }
}

fn largest_error(found: &[f32], expected: &[f32]) -> f64 {
    found.iter().zip(expected).map(|(found, expected)| f64::from((found - expected).abs())).fold(0.0, f64::max)
}
