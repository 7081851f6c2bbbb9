//! What goes in comes out; what was damaged on the way does not, and does not harm what follows.

use proptest::collection::vec;
use proptest::prelude::*;
use thumbnet_protocol::{
    Answer, Command, Floats, Info, MAX_DATA, MAX_FRAME, MAX_MESSAGE, Receiver, Refusal, Reply, Request, Unreadable,
    VERSION, decode, encode,
};

fn frame(message: &impl serde::Serialize) -> Vec<u8> {
    encode(message, &mut [0; MAX_FRAME]).expect("fits").to_vec()
}

/// A request with a number and as many bytes of data as told.
fn request(number: u32, data: &[u8]) -> Vec<u8> {
    frame(&Request { number, command: Command::Classify { input: data } })
}

/// What a receiver makes of a stream: the numbers of the requests, and what it could not read.
fn receive(stream: &[u8]) -> Vec<Result<(u32, Vec<u8>), Unreadable>> {
    let mut receiver = Receiver::new();
    let mut received = Vec::new();
    for byte in stream {
        let Some(found) = receiver.push(*byte) else { continue };
        received.push(found.and_then(decode::<Request<'_>>).map(|request| match request.command {
            Command::Classify { input } => (request.number, input.to_vec()),
            other => panic!("{other:?} was not sent"),
        }));
    }
    received
}

/// The requests that were received intact.
fn intact(stream: &[u8]) -> Vec<(u32, Vec<u8>)> {
    receive(stream).into_iter().flatten().collect()
}

fn requests() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    // Zero bytes and runs of 254 others are what COBS has to work for.
    let data = vec(prop_oneof![Just(0u8), any::<u8>(), Just(9u8)], 0..600);
    vec((any::<u32>(), data), 1..6)
}

fn stream(requests: &[(u32, Vec<u8>)]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for (number, data) in requests {
        bytes.extend(request(*number, data));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

proptest! {
    #[test]
    fn requests_arrive_in_order(requests in requests()) {
        prop_assert_eq!(intact(&stream(&requests).0), requests);
    }

    #[test]
    fn garbage_before_a_request_does_not_harm_it(garbage in vec(any::<u8>(), 0..2000), requests in requests()) {
        let bytes = [garbage, stream(&requests).0].concat();
        prop_assert_eq!(intact(&bytes), requests);
    }

    #[test]
    fn a_dropped_byte_costs_one_request_at_most(requests in requests(), at in any::<prop::sample::Index>()) {
        let (mut bytes, ends) = stream(&requests);
        let at = at.index(bytes.len());
        bytes.remove(at);
        let hit = ends.iter().position(|end| at < *end).unwrap();
        let mut others = requests.clone();
        others.remove(hit);
        let received = intact(&bytes);
        prop_assert!(received == others || received == requests, "{:?}", received);
    }

    #[test]
    fn a_changed_byte_costs_one_request_at_most(
        requests in requests(), at in any::<prop::sample::Index>(), change in 1u8..,
    ) {
        let (mut bytes, ends) = stream(&requests);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        // A frame's last byte, if it is no zero byte any more, joins it to the next one's first, which ends it.
        let hit = ends.iter().position(|end| at < *end).unwrap();
        let mut others = requests.clone();
        others.remove(hit);
        let received = intact(&bytes);
        prop_assert!(received == others || received == requests, "{:?}", received);
    }

    #[test]
    fn half_a_request_costs_no_other(requests in requests(), cut in any::<prop::sample::Index>()) {
        let (bytes, ends) = stream(&requests);
        let first = &bytes[..ends[0]];
        // Without its last byte a frame is still whole: the next one's first byte ends it.
        let half = &first[..cut.index(first.len() - 1)];
        prop_assert_eq!(intact(&[half, &bytes].concat()), requests);
    }

    #[test]
    fn answers_arrive(
        number: u32, requests: u32, class: u16, outputs in vec(any::<u32>().prop_map(f32::from_bits), 0..50), text in ".{0,30}",
    ) {
        let classified = Reply::Classified { class, outputs: Floats::new(&outputs) };
        let info = Info {
            protocol: VERSION, model: &text, model_bytes: number, shape: [class, 1, 2], outputs: 3, labels: 4,
            scratch_bytes: 5, upload_bytes: 6, stack_bytes: 7, kernels: &text,
        };
        let refused = Refusal::TooLarge { what: &text, needed: number, available: requests };
        for reply in [
            classified, Reply::Info(info), Reply::Stored { bytes: number }, Reply::Refused(refused),
            Reply::Refused(Refusal::NoModel(&text)), Reply::Refused(Refusal::Unreadable),
        ] {
            let mut receiver = Receiver::new();
            let bytes = frame(&Answer { number, requests, reply });
            let (last, before) = bytes.split_last().unwrap();
            prop_assert!(before.iter().all(|byte| receiver.push(*byte).is_none()));
            let message = receiver.push(*last).unwrap().unwrap();
            let answer: Answer<'_> = decode(message).unwrap();
            // Floats are compared as the bytes they are: NaN equals nothing.
            prop_assert_eq!(answer, Answer { number, requests, reply });
            if let Reply::Classified { outputs: received, .. } = answer.reply {
                prop_assert!(received.iter().map(f32::to_bits).eq(outputs.iter().map(|value| value.to_bits())));
            }
        }
    }
}

#[test]
fn a_frame_has_zero_bytes_at_its_ends_only() {
    for length in [0, 1, 253, 254, 255, 508, 784, MAX_DATA] {
        let bytes = request(1, &vec![0; length]);
        assert!(bytes.len() <= MAX_FRAME);
        let zeros = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(zeros, [0, bytes.len() - 1]);
        assert_eq!(intact(&bytes), [(1, vec![0; length])]);
    }
}

#[test]
fn the_longest_messages_fit_and_longer_ones_are_not_made() {
    let data = [7; MAX_DATA];
    let part = Request { number: u32::MAX, command: Command::Upload { offset: u32::MAX, data: &data } };
    assert!(frame(&part).len() <= MAX_FRAME);
    let answer = Answer {
        number: u32::MAX,
        requests: u32::MAX,
        reply: Reply::Classified { class: u16::MAX, outputs: Floats::new(&[1.0; MAX_DATA / 4]) },
    };
    assert!(frame(&answer).len() <= MAX_FRAME);
    let long = vec![7; MAX_MESSAGE];
    let too_long = Request { number: 1, command: Command::Classify { input: &long } };
    assert_eq!(encode(&too_long, &mut [0; MAX_FRAME]), None);
    assert_eq!(encode(&too_long, &mut []), None);
}

#[test]
fn each_kind_of_damage_is_told_apart() {
    let good = request(3, &[1, 2, 3]);
    assert_eq!(receive(&[0; 100]), []);
    assert_eq!(receive(&[&[9; MAX_FRAME + 1][..], &good].concat()), [Err(Unreadable::TooLong), Ok((3, vec![1, 2, 3]))]);
    assert_eq!(receive(&[200, 1, 2, 0]), [Err(Unreadable::Coding)]);
    assert_eq!(receive(&[2, 1, 0]), [Err(Unreadable::Checksum)]);
    let mut changed = good.clone();
    changed[4] ^= 0x40;
    assert!(
        matches!(receive(&changed)[..], [Err(Unreadable::Checksum | Unreadable::Coding)]),
        "{:?}",
        receive(&changed)
    );
    // Intact, but no request.
    assert_eq!(receive(&frame(&[200u8; 20])), [Err(Unreadable::Message)]);
    // A request with a byte behind it.
    assert_eq!(receive(&frame(&(Request { number: 1, command: Command::Info }, 0u8))), [Err(Unreadable::Message)]);
}

#[test]
fn the_bytes_are_those_of_the_description() {
    // Number 300 as a varint, the first command; then the checksum, which zlib computed.
    let bytes = frame(&Request { number: 300, command: Command::Info });
    let mut receiver = Receiver::new();
    let message = bytes.iter().find_map(|byte| receiver.push(*byte).map(|found| found.unwrap().to_vec())).unwrap();
    assert_eq!(message, [0xac, 0x02, 0x00]);
    assert_eq!(bytes, [0, 3, 0xac, 0x02, 5, 0x94, 0x1f, 0x15, 0x1d, 0]);
}
