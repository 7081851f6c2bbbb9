//! A device that runs a model, spoken to over a serial port or a TCP socket (an emulator's, say).
//!
//! The messages are those of [`thumbnet_protocol`]. A frame that is lost or damaged on the way, in either direction, is sent
//! again.

use crate::error::{Error, Result};
use serde::Serialize;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use thumbnet_protocol::{
    Answer, CHUNK, Command, MAX_DATA, MAX_FRAME, NO_NUMBER, Receiver, Refusal, Reply, Request, Unreadable, VERSION,
    decode, encode,
};

/// Where a device is, and how much patience to have with it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A serial port (`/dev/ttyACM0`, `COM3`), or `tcp:HOST:PORT`.
    pub port: String,
    /// Bits per second of a serial port.
    pub baud: u32,
    /// How long to wait for an answer before the request is sent again.
    pub timeout: Duration,
    /// How many times a request is sent before the device counts as gone.
    pub attempts: u32,
}

/// How long the wire has to be silent after a damaged frame: what follows may be the answer, intact.
const SETTLE: Duration = Duration::from_millis(50);

/// What a device tells about itself and its model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// What the model is called.
    pub model: String,
    /// Size of the model file in bytes.
    pub model_bytes: u32,
    /// Height, width and channels of an input.
    pub shape: [u16; 3],
    /// The number of classes.
    pub outputs: u16,
    /// The number of labels.
    pub labels: u16,
    /// Scratch memory of the model in bytes.
    pub scratch_bytes: u32,
    /// The largest model that can be uploaded, in bytes.
    pub upload_bytes: u32,
    /// The most stack that the device has used at one time, in bytes.
    pub stack_bytes: u32,
    /// What the device's kernels were built for.
    pub kernels: String,
    /// The version of the protocol.
    pub protocol: u16,
}

impl DeviceInfo {
    /// The number of bytes of an input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.shape.into_iter().map(usize::from).product()
    }
}

/// What a device says of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// The class.
    pub class: u16,
    /// The model's outputs: probabilities, if it ends in a softmax.
    pub outputs: Vec<f32>,
    /// How many requests the device has answered since it started.
    pub requests: u32,
}

/// A connection to a device.
pub struct Device {
    options: Options,
    port: Box<dyn Port>,
    receiver: Receiver,
    /// Bytes that were read, and those of them that the receiver has had.
    bytes: Vec<u8>,
    taken: usize,
    /// The number of the last request.
    number: u32,
    retries: u64,
    /// Whether an intact frame had a message in it that this version of the protocol does not have.
    foreign: bool,
}

impl Device {
    /// Opens the port. Whether a device is there shows with the first request.
    ///
    /// # Errors
    /// [`Error::Device`] if the port cannot be opened.
    pub fn open(options: Options) -> Result<Self> {
        let opened: std::io::Result<Box<dyn Port>> = match options.port.strip_prefix("tcp:") {
            Some(address) => connect(address, options.timeout).map(|stream| Box::new(stream) as _),
            None => open_serial(&options).map(|port| Box::new(port) as _),
        };
        let port = opened.map_err(|e| problem(&options, format!("cannot be opened: {e}")))?;
        // Not the numbers of the connection before, of which an answer may still be under way.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let number = now.subsec_nanos() ^ now.as_secs() as u32;
        Ok(Self {
            options,
            port,
            receiver: Receiver::new(),
            bytes: Vec::new(),
            taken: 0,
            number,
            retries: 0,
            foreign: false,
        })
    }

    /// How many times a request was sent again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// Asks for the device's model.
    ///
    /// # Errors
    /// [`Error::Device`] if no answer comes, or if the device speaks another version of the protocol.
    pub fn info(&mut self) -> Result<DeviceInfo> {
        let message = self.exchange(Command::Info)?;
        self.read_info(&message)
    }

    /// Has the device classify an input: a byte per value.
    ///
    /// # Errors
    /// [`Error::Device`] if no answer comes, or if the model takes other inputs.
    pub fn classify(&mut self, input: &[u8]) -> Result<Classified> {
        if input.len() > MAX_DATA {
            return Err(self.error(format!("an input of {} bytes, but at most {MAX_DATA} can be sent", input.len())));
        }
        let message = self.exchange(Command::Classify { input })?;
        match self.answer(&message)? {
            Answer { reply: Reply::Classified { class, outputs }, requests, .. } => {
                Ok(Classified { class, outputs: outputs.iter().collect(), requests })
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends a model, which the device validates and uses from now on. `progress` is told how many bytes have arrived.
    ///
    /// # Errors
    /// [`Error::Device`] if no answer comes, or if the device refuses the model; then it goes on with the one it had.
    pub fn upload(&mut self, name: &str, model: &[u8], mut progress: impl FnMut(u64)) -> Result<DeviceInfo> {
        let bytes = u32::try_from(model.len()).map_err(|_| self.error("the model has more than 4 GiB"))?;
        self.store(Command::StartUpload { name: shortened(name), bytes })?;
        for (index, data) in model.chunks(CHUNK).enumerate() {
            let offset = (index * CHUNK) as u32;
            progress(self.store(Command::Upload { offset, data })?.into());
        }
        let message = self.exchange(Command::UseUpload)?;
        self.read_info(&message)
    }

    /// A step of an upload; gives the bytes that are there.
    fn store(&mut self, command: Command<'_>) -> Result<u32> {
        let message = self.exchange(command)?;
        match self.answer(&message)? {
            Answer { reply: Reply::Stored { bytes }, .. } => Ok(bytes),
            other => Err(self.unexpected(&other)),
        }
    }

    fn read_info(&self, message: &[u8]) -> Result<DeviceInfo> {
        let Answer { reply: Reply::Info(info), .. } = self.answer(message)? else {
            return Err(self.unexpected(&self.answer(message)?));
        };
        let protocol = info.protocol;
        if protocol != VERSION {
            return Err(self.error(format!("the device speaks version {protocol} of the protocol, expected {VERSION}")));
        }
        Ok(DeviceInfo {
            model: info.model.to_owned(),
            model_bytes: info.model_bytes,
            shape: info.shape,
            outputs: info.outputs,
            labels: info.labels,
            scratch_bytes: info.scratch_bytes,
            upload_bytes: info.upload_bytes,
            stack_bytes: info.stack_bytes,
            kernels: info.kernels.to_owned(),
            protocol,
        })
    }

    /// Sends a request until its answer comes; gives the answer's message.
    fn exchange(&mut self, command: Command<'_>) -> Result<Vec<u8>> {
        self.number = match self.number.wrapping_add(1) {
            NO_NUMBER => NO_NUMBER + 1,
            number => number,
        };
        let mut buffer = [0; MAX_FRAME];
        let frame = encode(&Request { number: self.number, command }, &mut buffer).expect("commands keep to MAX_DATA");
        for attempt in 0..self.options.attempts {
            self.retries += u64::from(attempt > 0);
            self.port.write_all(frame).and_then(|()| self.port.flush()).map_err(|e| self.error(e.to_string()))?;
            if let Some(message) = self.receive()? {
                return Ok(message);
            }
        }
        if self.foreign {
            return Err(self.error(format!("what the device speaks is not version {VERSION} of the protocol")));
        }
        let Options { attempts, timeout, .. } = &self.options;
        let tried = if *attempts == 1 { "a request".to_owned() } else { format!("{attempts} requests") };
        Err(self.error(format!("no answer to {tried} within {} s each: is the device there?", timeout.as_secs_f32())))
    }

    /// Waits for the answer to the last request. `None` if it, or the request, seems to be lost.
    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut deadline = Instant::now() + self.options.timeout;
        loop {
            while let Some(byte) = self.bytes.get(self.taken) {
                self.taken += 1;
                let Some(found) = self.receiver.push(*byte) else { continue };
                match found.and_then(|message| decode::<Answer<'_>>(message).map(|answer| (message, answer.number))) {
                    Ok((message, number)) if number == self.number => return Ok(Some(message.to_vec())),
                    Err(Unreadable::Message) => {
                        self.foreign = true;
                        return Ok(None);
                    }
                    // The device could not read the request, or what it said was damaged.
                    Ok((_, NO_NUMBER)) | Err(_) => deadline = deadline.min(Instant::now() + SETTLE),
                    Ok(_) => {} // an answer to an earlier request, which has been answered since
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.read(left)?;
        }
    }

    /// Reads what comes within a time, if anything does.
    fn read(&mut self, within: Duration) -> Result<()> {
        self.bytes.resize(4096, 0);
        self.taken = 0;
        let read = self.port.limit_reading(within).and_then(|()| self.port.read(&mut self.bytes));
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(self.error("the connection was closed")),
            Ok(_) => Ok(()),
            Err(e) if [ErrorKind::TimedOut, ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&e.kind()) => {
                Ok(())
            }
            Err(e) => Err(self.error(e.to_string())),
        }
    }

    /// The answer in a message; a refusal is an error.
    fn answer<'m>(&self, message: &'m [u8]) -> Result<Answer<'m>> {
        let answer: Answer<'m> = decode(message).expect("it was decoded when it was received");
        match answer.reply {
            Reply::Refused(refusal) => Err(self.error(format!("the device refused: {}", explain(refusal)))),
            _ => Ok(answer),
        }
    }

    fn unexpected(&self, answer: &Answer<'_>) -> Error {
        self.error(format!("the device gave an answer of the wrong kind: {:?}", answer.reply))
    }

    fn error(&self, what: impl Into<String>) -> Error {
        problem(&self.options, what)
    }
}

fn problem(options: &Options, what: impl Into<String>) -> Error {
    Error::Device { port: options.port.clone(), problem: what.into() }
}

/// A name of at most so many letters: a device does not keep more.
fn shortened(name: &str) -> &str {
    name.char_indices().nth(32).map_or(name, |(end, _)| &name[..end])
}

fn explain(refusal: Refusal<'_>) -> String {
    match refusal {
        Refusal::Unreadable => "the request was damaged".into(),
        Refusal::InputLength { found, expected } => {
            format!("its model takes {expected} values, but the input has {found}")
        }
        Refusal::TooLarge { what, needed, available } => {
            format!("the model needs {needed} {what}, but the device has {available}")
        }
        Refusal::NoUpload => "no upload is under way: did the device start anew?".into(),
        Refusal::UploadGap { stored, announced } => {
            format!("{stored} of {announced} bytes are there, and what came does not go on from there")
        }
        Refusal::NoModel(reason) => format!("what it received is not a usable model: {reason}"),
    }
}

/// A stream of bytes whose reading can be limited in time.
trait Port: Read + Write + Send {
    fn limit_reading(&mut self, within: Duration) -> std::io::Result<()>;
}

impl Port for TcpStream {
    fn limit_reading(&mut self, within: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(within))
    }
}

impl Port for SerialPort {
    fn limit_reading(&mut self, within: Duration) -> std::io::Result<()> {
        Ok(self.0.set_timeout(within)?)
    }
}

/// A serial port.
struct SerialPort(Box<dyn serialport::SerialPort>);

impl Read for SerialPort {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for SerialPort {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn open_serial(options: &Options) -> std::io::Result<SerialPort> {
    let port = serialport::new(&options.port, options.baud).timeout(options.timeout).open()?;
    port.clear(serialport::ClearBuffer::All)?;
    Ok(SerialPort(port))
}

fn connect(address: &str, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut refused = std::io::Error::new(ErrorKind::InvalidInput, "expected tcp:HOST:PORT");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(e) => refused = e,
        }
    }
    Err(refused)
}
