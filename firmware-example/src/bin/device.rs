//! A classifier that is spoken to over a UART: it runs its model on the inputs that come, and takes a new model in its place.
//!
//! `thumbnet device eval` speaks to it. The messages and their frames are described in `thumbnet-protocol`. No heap,
//! and no semihosting: a board's own driver in the place of the UART's is all that it needs elsewhere.
#![no_std]
#![no_main]

use core::fmt::Write as _;
use cortex_m_rt::entry;
use firmware_example::cmsdk_uart::Uart;
use firmware_example::stack;
use heapless::String;
use static_cell::ConstStaticCell;
use thumbnet::{Aligned, Model, Scratch};
use thumbnet_protocol::{
    Answer, Command, Floats, Info, MAX_DATA, MAX_FRAME, NO_NUMBER, Receiver, Refusal, Reply, Request, VERSION, decode,
    encode,
};

thumbnet::include_model! {
    /// The model that the device starts with.
    mod digits = "../../../models/digits.tnet";
}

/// Clock of the board in Hz.
const CLOCK_HZ: u32 = 25_000_000;

/// Bits per second on the wire. QEMU does not mind.
const BAUD: u32 = 115_200;

/// Room for an uploaded model. There are two, so that a model can arrive while another one is in use.
const MODEL_BYTES: usize = 512 * 1024;

/// Room for an uploaded model's scratch memory, or the built-in model's if that is more.
const SCRATCH_BYTES: usize = if digits::SCRATCH_BYTES > 64 * 1024 { digits::SCRATCH_BYTES } else { 64 * 1024 };

/// Bytes of a model's name. A longer one is cut.
const NAME_BYTES: usize = 32;

static ROOMS: ConstStaticCell<[Room; 2]> = ConstStaticCell::new([Room::EMPTY; 2]);
static SCRATCH: ConstStaticCell<Scratch<SCRATCH_BYTES>> = ConstStaticCell::new(Scratch::zeroed());
static LINK: ConstStaticCell<Link> =
    ConstStaticCell::new(Link { receiver: Receiver::new(), frame: [0; MAX_FRAME], answers: 0 });

#[entry]
fn main() -> ! {
    stack::paint();
    let mut uart = Uart::mps2_uart0(CLOCK_HZ, BAUD);
    let (link, scratch) = (LINK.take(), SCRATCH.take());
    let [first, second] = ROOMS.take();
    let (mut active, mut spare) = (first, second);
    let mut answer_first = None;
    loop {
        // A model was validated before it got here. Should its memory be damaged, the built-in one takes over; and should
        // that one be, there is nothing left to run.
        let uploaded = Loaded::new(&active.name, active.bytes());
        let Some(loaded) = uploaded.or_else(|| Loaded::new("digits", digits::BLOB)) else { halt() };
        let number = Device { loaded, scratch: &mut *scratch }.serve(spare, link, &mut uart, answer_first);
        answer_first = Some(number);
        core::mem::swap(&mut active, &mut spare);
        spare.clear();
    }
}

/// Memory for one uploaded model.
struct Room {
    memory: Aligned<[u8; MODEL_BYTES]>,
    name: String<NAME_BYTES>,
    /// The model's size; 0 if there is none.
    announced: usize,
    /// Bytes of it that are there.
    stored: usize,
}

impl Room {
    const EMPTY: Self = Self { memory: Aligned::zeroed(), name: String::new(), announced: 0, stored: 0 };

    /// What is stored.
    fn bytes(&self) -> &[u8] {
        self.memory.get(..self.stored).unwrap_or_default()
    }

    fn clear(&mut self) {
        (self.announced, self.stored) = (0, 0);
        self.name.clear();
    }

    fn start(&mut self, name: &str, bytes: u32) -> Reply<'static> {
        self.clear();
        if bytes as usize > MODEL_BYTES {
            return too_large("bytes of memory for models", bytes as usize, MODEL_BYTES);
        }
        self.announced = bytes as usize;
        for letter in name.chars() {
            if self.name.push(letter).is_err() {
                break;
            }
        }
        Reply::Stored { bytes: 0 }
    }

    /// Parts come in order; one that comes again, because its answer was lost, is stored again.
    fn store(&mut self, offset: u32, data: &[u8]) -> Reply<'static> {
        let (announced, stored) = (self.announced, self.stored);
        if announced == 0 {
            return Reply::Refused(Refusal::NoUpload);
        }
        let offset = offset as usize;
        let end = offset.saturating_add(data.len());
        match self.memory.get_mut(offset..end) {
            Some(place) if offset <= stored && end <= announced => place.copy_from_slice(data),
            _ => return self.gap(),
        }
        self.stored = stored.max(end);
        Reply::Stored { bytes: self.stored as u32 }
    }

    fn gap(&self) -> Reply<'static> {
        Reply::Refused(Refusal::UploadGap { stored: self.stored as u32, announced: self.announced as u32 })
    }

    /// The model that was uploaded, if it is one that can run here; else why not.
    fn model<'r>(&'r self, reason: &'r mut String<128>) -> Result<Model<'r>, Reply<'r>> {
        if self.announced == 0 {
            return Err(Reply::Refused(Refusal::NoUpload));
        }
        if self.stored < self.announced {
            return Err(self.gap());
        }
        let model = match Model::load(self.bytes()) {
            Ok(model) => model,
            Err(error) => {
                // A reason that does not fit is cut: what has been written stays.
                let _ = write!(reason, "{error}");
                return Err(Reply::Refused(Refusal::NoModel(reason)));
            }
        };
        for (what, needed, available) in [
            ("bytes of scratch memory", model.scratch_bytes(), SCRATCH_BYTES),
            ("bytes of input", model.input_len(), MAX_DATA),
            ("bytes of outputs", model.output_len().saturating_mul(size_of::<f32>()), MAX_DATA),
        ] {
            if needed > available {
                return Err(too_large(what, needed, available));
            }
        }
        Ok(model)
    }
}

fn too_large(what: &'static str, needed: usize, available: usize) -> Reply<'static> {
    Reply::Refused(Refusal::TooLarge { what, needed: needed as u32, available: available as u32 })
}

/// What the messages go through.
struct Link {
    receiver: Receiver,
    /// The frame that is sent.
    frame: [u8; MAX_FRAME],
    /// Requests answered so far.
    answers: u32,
}

impl Link {
    fn send(&mut self, number: u32, reply: Reply<'_>, uart: &mut Uart) {
        if number != NO_NUMBER {
            self.answers = self.answers.wrapping_add(1);
        }
        let answer = Answer { number, requests: self.answers, reply };
        if let Some(frame) = encode(&answer, &mut self.frame) {
            uart.write(frame);
        }
    }
}

/// A model, and where it came from.
struct Loaded<'m> {
    model: Model<'m>,
    name: &'m str,
    bytes: usize,
}

impl<'m> Loaded<'m> {
    fn new(name: &'m str, blob: &'m [u8]) -> Option<Self> {
        Model::load(blob).ok().map(|model| Self { model, name, bytes: blob.len() })
    }
}

/// What answers requests: the model in use, and its scratch memory.
struct Device<'m, 's> {
    loaded: Loaded<'m>,
    scratch: &'s mut Aligned<[u8]>,
}

impl Device<'_, '_> {
    /// Answers requests until `room` holds a model that is to be used instead; gives the number of the request that said
    /// so, which is answered with that model in its place: `answer_first`.
    fn serve(mut self, room: &mut Room, link: &mut Link, uart: &mut Uart, answer_first: Option<u32>) -> u32 {
        if let Some(number) = answer_first {
            link.send(number, Reply::Info(self.info()), uart);
        }
        loop {
            let received = loop {
                if let Some(received) = link.receiver.push(uart.read()) {
                    break received;
                }
            };
            let Ok(Request { number, command }) = received.and_then(decode) else {
                link.send(NO_NUMBER, Reply::Refused(Refusal::Unreadable), uart);
                continue;
            };
            let mut reason = String::new();
            let reply = match command {
                Command::Info => Reply::Info(self.info()),
                Command::Classify { input } => self.classify(input),
                Command::StartUpload { name, bytes } => room.start(name, bytes),
                Command::Upload { offset, data } => room.store(offset, data),
                // It came before, and its answer was lost.
                Command::UseUpload if answer_first == Some(number) => Reply::Info(self.info()),
                Command::UseUpload => match room.model(&mut reason) {
                    Ok(_) => return number,
                    Err(refusal) => refusal,
                },
            };
            link.send(number, reply, uart);
        }
    }

    fn info(&self) -> Info<'_> {
        let Loaded { model, name, bytes } = &self.loaded;
        let shape = model.input().shape;
        Info {
            protocol: VERSION,
            model: name,
            model_bytes: *bytes as u32,
            shape: [shape.height, shape.width, shape.channels],
            outputs: model.output_len() as u16,
            labels: model.labels().count() as u16,
            scratch_bytes: model.scratch_bytes() as u32,
            upload_bytes: MODEL_BYTES as u32,
            stack_bytes: stack::high_water_mark() as u32,
            kernels: thumbnet::kernels::built_for(),
        }
    }

    fn classify(&mut self, input: &[u8]) -> Reply<'_> {
        match self.loaded.model.run(input, self.scratch) {
            Ok(outputs) => Reply::Classified { class: largest(outputs), outputs: Floats::new(outputs) },
            // The scratch memory is large enough: that was seen to before the model was taken.
            Err(_) => Reply::Refused(Refusal::InputLength {
                found: input.len() as u32,
                expected: self.loaded.model.input_len() as u32,
            }),
        }
    }
}

/// The class with the largest output, as `Model::classify` finds it.
fn largest(outputs: &[f32]) -> u16 {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, output) in outputs.iter().enumerate() {
        if *output > best.1 {
            best = (class, *output);
        }
    }
    best.0 as u16
}

fn halt() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}

/// No panic is known. Unlike `board` this program cannot prove that there is none, since crates that it stands on (`cobs`,
/// `postcard`) use indices; so it would start anew, with the built-in model, and be there for the next request.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
