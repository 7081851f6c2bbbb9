//! The serial protocol: any bytes on the wire, and any bytes in a frame.

use thumbnet_protocol::{Answer, Command, MAX_DATA, MAX_FRAME, Receiver, Reply, Request, decode, encode};

/// Any bytes on the wire, and any bytes as a message.
pub fn protocol(bytes: &[u8]) {
    let mut receiver = Receiver::new();
    for byte in bytes {
        if let Some(Ok(message)) = receiver.push(*byte) {
            meet(message);
        }
    }
    meet(bytes);
}

/// What can be read can be sent again, and arrives as the same.
fn meet(message: &[u8]) {
    if let Ok(request) = decode::<Request<'_>>(message) {
        let data = match request.command {
            Command::Classify { input: data } | Command::Upload { data, .. } => data,
            Command::StartUpload { name, .. } => name.as_bytes(),
            Command::Info | Command::UseUpload => &[],
        };
        if data.len() <= MAX_DATA {
            arrives(&request, |message| assert_eq!(decode::<Request<'_>>(message), Ok(request)));
        }
    }
    if let Ok(answer) = decode::<Answer<'_>>(message) {
        if let Reply::Classified { outputs, .. } = answer.reply {
            let _ = outputs.iter().count();
        }
        // Only what a device sends is bounded; its texts are short.
        if message.len() <= MAX_DATA {
            arrives(&answer, |message| assert_eq!(decode::<Answer<'_>>(message), Ok(answer)));
        }
    }
}

fn arrives(message: &impl serde::Serialize, check: impl Fn(&[u8])) {
    let mut buffer = vec![0; MAX_FRAME];
    let frame = encode(message, &mut buffer).expect("a frame is large enough for its data");
    let mut receiver = Receiver::new();
    let mut arrived = 0;
    for byte in frame {
        if let Some(message) = receiver.push(*byte) {
            check(message.expect("nothing was damaged"));
            arrived += 1;
        }
    }
    assert_eq!(arrived, 1);
}
