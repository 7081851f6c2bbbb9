//! Damaged and random files: none makes the library panic, and what loads runs.
//!
//! Most damage is found by the checksum, so most tests repair that. And a test whose files never load would prove
//! nothing about running them, so each counts what happened and insists on a good share.

mod common;

use common::network::{
    Network, avg_pool, conv, dense, dense_model, depthwise, every_layer, input, leaky, max_pool, quantized,
};
use common::raw::{RawBlob, repair, reseal};
use common::{MOST_WORK, run_everywhere, work};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use std::cell::Cell;
use thumbnet::layer::{Activation, Layer, Packing, Padding};
use thumbnet::{AlignedBuf, LoadError, Model};

/// The longest weight section that is made for a mutated header.
const MOST_WEIGHTS: usize = 4 << 20;

/// What became of the files.
#[derive(Debug, Default)]
struct Fates {
    refused: Cell<u32>,
    run: Cell<u32>,
    /// Loaded, but would take too long.
    skipped: Cell<u32>,
}

impl Fates {
    fn total(&self) -> u32 {
        self.refused.get() + self.run.get() + self.skipped.get()
    }

    /// Loads a file and runs it if it does load.
    fn meet(&self, blob: &[u8]) {
        let fate = match Model::load(blob) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                &self.refused
            }
            Ok(model) if work(&model) > MOST_WORK => &self.skipped,
            Ok(_) => {
                run_everywhere(blob);
                &self.run
            }
        };
        fate.set(fate.get() + 1);
    }

    /// Fails if fewer than `percent` of all files ran.
    #[track_caller]
    fn assert_share_run(&self, percent: u32) {
        println!("{self:?}");
        assert!(self.run.get() * 100 >= self.total() * percent, "less than {percent} % of the files ran: {self:?}");
    }
}

/// One change of a file. Places are relative, so that they fit any length.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Delete(Index, u8),
    /// A part of another file, written over this one.
    Splice(Index, Index, u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = any::<Index>;
    prop_oneof![
        3 => (place(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        4 => (place(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        1 => (place(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        1 => (place(), 1u8..8).prop_map(|(at, count)| Edit::Delete(at, count)),
        1 => (place(), place(), 1u8..40).prop_map(|(from, to, count)| Edit::Splice(from, to, count)),
    ]
}

fn edits(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(edit(), count)
}

/// Applies the changes to `bytes`, of which the first `reach` are in reach.
fn apply(edits: &[Edit], bytes: &mut Vec<u8>, reach: usize, other: &[u8]) {
    for edit in edits {
        let reach = reach.min(bytes.len());
        if reach == 0 {
            return;
        }
        match edit {
            Edit::Set(at, byte) => bytes[at.index(reach)] = *byte,
            Edit::Flip(at, bit) => bytes[at.index(reach)] ^= 1 << bit,
            Edit::Insert(at, more) => {
                let at = at.index(reach);
                bytes.splice(at..at, more.iter().copied());
            }
            Edit::Delete(at, count) => {
                let at = at.index(reach);
                bytes.drain(at..(at + usize::from(*count)).min(bytes.len()));
            }
            Edit::Splice(from, to, count) => {
                let (from, to) = (from.index(other.len()), to.index(reach));
                let count = usize::from(*count).min(other.len() - from).min(bytes.len() - to);
                bytes[to..to + count].copy_from_slice(&other[from..from + count]);
            }
        }
    }
}

/// Valid models to start from.
fn seeds() -> Vec<Network> {
    let mut lenet = conv(4, 5, Activation::Relu);
    lenet.pool = [2, 2];
    let mut cropped = conv(17, 3, Activation::Sigmoid);
    cropped.padding = Padding { top: -1, bottom: 1, left: 2, right: -1 };
    cropped.stride = [2, 1];
    let mut separable = depthwise(3, Activation::Relu);
    separable.padding = Padding { top: 1, bottom: 1, left: 1, right: 1 };
    separable.stride = [2, 1];
    let mut pooled = conv(9, 3, Activation::Relu);
    pooled.pool = [2, 2];
    pooled.padding = Padding { top: 1, bottom: 0, left: 2, right: 1 };
    let int8 = |packing| {
        let layers = [
            Layer::Conv2d(pooled),
            Layer::DepthwiseConv2d(separable),
            max_pool([2, 2], [1, 1]),
            avg_pool([1, 2], [1, 1]),
            dense(7, Activation::Tanh),
            dense(9, Activation::Relu6),
            dense(6, leaky(0.2)),
            dense(4, Activation::None),
            Layer::Softmax,
        ];
        Network::random(input(9, 8, 2), &quantized(&input(9, 8, 2), &layers, 0.01, packing), 5)
    };
    vec![
        every_layer(),
        int8(Packing::Grouped),
        int8(Packing::Folded),
        dense_model(),
        Network::random(input(14, 14, 1), &[Layer::Conv2d(lenet), dense(10, Activation::None), Layer::Softmax], 1),
        Network::random(input(9, 8, 2), &[Layer::Conv2d(cropped), max_pool([2, 2], [2, 2])], 2),
        Network::random(input(6, 6, 3), &[max_pool([3, 3], [1, 1]), max_pool([1, 2], [2, 1])], 3),
        Network::random(
            input(7, 9, 5),
            &[Layer::DepthwiseConv2d(separable), Layer::Conv2d(conv(6, 1, Activation::None))],
            4,
        ),
    ]
}

fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..Config::with_cases(cases)
    };
    let result = TestRunner::new(config).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Two valid files, changes to the first, and whether they are likely to be in its header.
fn mutated() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let files: Vec<Vec<u8>> = seeds().iter().map(|network| network.encode().to_vec()).collect();
    let file = prop::sample::select(files);
    (file.clone(), file, edits(1..6), any::<bool>()).prop_map(|(mut file, other, edits, in_header)| {
        let reach = if in_header { 150 } else { file.len() };
        apply(&edits, &mut file, reach, &other);
        (file, other)
    })
}

#[test]
fn mutated_files_without_a_seal_are_refused() {
    check(3000, mutated(), |(file, other)| {
        let blob = AlignedBuf::from_bytes(&file);
        let unchanged = || seeds().iter().any(|network| network.encode()[..] == file[..]);
        assert!(Model::load(&blob).is_err() || file == other || unchanged());
    });
}

#[test]
fn mutated_files_with_the_right_checksum_never_panic() {
    let fates = Fates::default();
    check(8000, mutated(), |(file, _)| {
        let mut blob = AlignedBuf::from_bytes(&file);
        reseal(&mut blob);
        fates.meet(&blob);
    });
    fates.assert_share_run(10);
}

#[test]
fn mutated_files_with_a_repaired_prefix_never_panic() {
    let fates = Fates::default();
    check(8000, mutated(), |(file, _)| {
        let mut blob = AlignedBuf::from_bytes(&file);
        blob[..4].copy_from_slice(b"TNET");
        repair(&mut blob);
        fates.meet(&blob);
    });
    fates.assert_share_run(15);
}

/// Headers with any change at all, around which the rest of the file is made to fit: padding, weights, prefix.
#[test]
fn mutated_headers_in_an_intact_file_never_panic() {
    let fates = Fates::default();
    let raw: Vec<_> = seeds().iter().map(RawBlob::of).collect();
    let pair = (prop::sample::select(raw.clone()), prop::sample::select(raw), edits(1..3));
    check(12_000, pair, |(mut raw, other, edits)| {
        let mut header = raw.header();
        let reach = header.len();
        apply(&edits, &mut header, reach, &other.header());
        let mut blob = raw.write_with(header.clone());
        repair(&mut blob);
        if let Err(LoadError::WrongWeightLength { expected, .. }) = Model::load(&blob) {
            if expected > MOST_WEIGHTS {
                return fates.skipped.set(fates.skipped.get() + 1);
            }
            raw.weights = raw.weights.iter().copied().chain([0x3e]).cycle().take(expected).collect();
            blob = raw.write_with(header);
            repair(&mut blob);
        }
        fates.meet(&blob);
    });
    fates.assert_share_run(15);
}

#[test]
fn random_bytes_never_panic() {
    let fates = Fates::default();
    let bytes = (prop::collection::vec(any::<u8>(), 0..400), 0usize..64, 0..4);
    check(8000, bytes, |(bytes, off_by, dress)| {
        let mut buffer = AlignedBuf::zeroed(bytes.len() + 64);
        let file = &mut buffer[if dress == 0 { off_by } else { 0 }..][..bytes.len()];
        file.copy_from_slice(&bytes);
        // The more of the prefix is right, the further the loader gets.
        if dress > 1 && file.len() >= 40 {
            file[..8].copy_from_slice(b"TNET\x01\0\0\0");
            file[16..20].copy_from_slice(&1u32.to_le_bytes());
            reseal(file);
        }
        fates.meet(file);
    });
    assert_eq!(fates.refused.get(), fates.total(), "random bytes made a model: {fates:?}");
}
