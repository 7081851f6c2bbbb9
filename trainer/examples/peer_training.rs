//! This trainer as a contestant of the peer harness: `peer_training train --data DIR --mnist DIR` prints how long it takes to go
//! once through the 60,000 images of MNIST, in file order, from the harness's start weights.
//!
//! A1 is trained with batches of 32 and plain gradient descent (rate 0.1), A3 with batches of 64 and Adam (rate 0.001) on the first
//! 12,800 images, as the harness's Python peers are: the mean losses are comparable. With `--micro-batch N` a batch is divided
//! among the threads.

// What serves inference only is left over.
#[allow(dead_code)]
#[path = "../../examples/peer_harness/data.rs"]
mod data;
#[allow(dead_code)]
#[path = "../../examples/peer_harness/network.rs"]
mod network;

use clap::Parser;
use data::{Data, Result};
use network::Network;
use std::path::PathBuf;
use std::time::Instant;
use thumbnet_trainer::checkpoint::Checkpoint;
use thumbnet_trainer::data::{DataSet, mnist};
use thumbnet_trainer::error::Error;
use thumbnet_trainer::recipe::Recipe;
use thumbnet_trainer::train::{Epoch, Observer, Progress, Training};

#[derive(Parser)]
enum Args {
    /// Measure training
    Train {
        /// The folder with the harness's tensors
        #[arg(long)]
        data: PathBuf,
        /// The folder with MNIST's files
        #[arg(long)]
        mnist: PathBuf,
        /// The name in the results
        #[arg(long, default_value = "thumbnet")]
        name: String,
        /// Images that go through the network at a time on one thread
        #[arg(long)]
        micro_batch: Option<usize>,
        /// Threads
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
}

const A1: &str = r#"
description = "A1"
seed = 1
epochs = 1
batch = 32
learning_rate = 0.1
loss = "cross-entropy"
layers = [
    { type = "dense", outputs = 128, activation = "relu", init = "he-normal" },
    { type = "dense", outputs = 64, activation = "relu", init = "he-normal" },
    { type = "dense", outputs = 10, init = "he-normal" },
]
"#;

const A3: &str = r#"
description = "A3"
seed = 1
epochs = 1
batch = 64
learning_rate = 0.001
loss = "cross-entropy"
optimizer = { type = "adam" }
layers = [
    { type = "conv2d", filters = 16, kernel = [3, 3], activation = "relu", init = "he-normal" },
    { type = "max-pool2d", kernel = [2, 2] },
    { type = "conv2d", filters = 32, kernel = [3, 3], activation = "relu", init = "he-normal" },
    { type = "max-pool2d", kernel = [2, 2] },
    { type = "dense", outputs = 10, init = "he-normal" },
]
"#;

fn main() -> Result<()> {
    let Args::Train { data, mnist, name, micro_batch, threads } = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let (data, images) = (Data::read(&data)?, mnist::training(&mnist)?);
    for (network, recipe, count) in [("A1", A1, 60_000), ("A3", A3, 12_800)] {
        let recipe = Recipe { micro_batch, images: Some(count), ..Recipe::parse(network, recipe)? };
        let start = Network::read(&data, network)?;
        // The least of two, as of the peers.
        let runs = [measure(&recipe, &images, &start)?, measure(&recipe, &images, &start)?];
        let seconds = runs[0].0.min(runs[1].0) * 60_000.0 / count as f64;
        println!(
            "TRAIN\t{name}\t{network}\t{}\t{seconds:.4}\tmean_loss {:.4}\tmeasured on {count}",
            recipe.batch, runs[0].1,
        );
    }
    Ok(())
}

/// How many seconds an epoch takes, and its mean loss.
fn measure(recipe: &Recipe, images: &DataSet, start: &Network) -> Result<(f64, f64)> {
    // What is measured ends before it is tested.
    let test = images.select(&[0]);
    let mut training = Training::new(recipe, images, &test)?;
    training.start_from(&start.model()?, 0)?;
    let mut clock = Clock { started: Instant::now(), seconds: 0.0, loss: 0.0 };
    // It ends the training after the epoch: the images need not be looked at again.
    let ended = training.run(&mut clock);
    if clock.seconds > 0.0 { Ok((clock.seconds, clock.loss)) } else { Err(ended.err().ok_or("no epoch")?.into()) }
}

struct Clock {
    started: Instant,
    seconds: f64,
    loss: f64,
}

impl Observer for Clock {
    fn batch(&mut self, progress: &Progress) {
        if progress.images == progress.of {
            (self.seconds, self.loss) = (self.started.elapsed().as_secs_f64(), progress.loss);
        }
    }

    fn epoch(&mut self, _: &Epoch, _: usize, _: &dyn Fn() -> Checkpoint) -> thumbnet_trainer::error::Result<()> {
        Err(Error::Option("measured".to_owned()))
    }
}
