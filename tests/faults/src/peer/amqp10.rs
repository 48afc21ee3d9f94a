//! What a broker of AMQP 1.0 says.

use super::Script;

/// The header before the login.
pub const SASL: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// The header before everything else.
pub const AMQP: [u8; 8] = *b"AMQP\x00\x01\x00\x00";

/// A frame: 0 is AMQP's type, 1 the login's.
pub fn frame(kind: u8, channel: u16, performative: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from((performative.len() as u32 + 8).to_be_bytes());
    frame.extend([2, kind]);
    frame.extend(channel.to_be_bytes());
    frame.extend(performative);
    frame
}

/// A performative of these fields.
pub fn described(descriptor: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    let body = fields.concat();
    let mut list = vec![0x00, 0x53, descriptor, 0xd0];
    list.extend((body.len() as u32 + 4).to_be_bytes());
    list.extend((fields.len() as u32).to_be_bytes());
    list.extend(body);
    list
}

/// No value.
pub fn null() -> Vec<u8> {
    vec![0x40]
}

/// A text.
pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xa1, text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

/// A symbol.
pub fn symbol(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xa3, text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

/// A number of 32 bits.
pub fn uint(number: u32) -> Vec<u8> {
    [vec![0x70], number.to_be_bytes().to_vec()].concat()
}

/// A number of 16 bits.
pub fn ushort(number: u16) -> Vec<u8> {
    [vec![0x60], number.to_be_bytes().to_vec()].concat()
}

/// A map.
pub fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> =
        entries.iter().flat_map(|(key, value)| [key.clone(), value.clone()].concat()).collect();
    let mut map = vec![0xd1];
    map.extend((body.len() as u32 + 4).to_be_bytes());
    map.extend((entries.len() as u32 * 2).to_be_bytes());
    map.extend(body);
    map
}

/// The ways to log in that there are.
pub fn mechanisms() -> Vec<u8> {
    frame(1, 0, &described(0x40, &[symbol("PLAIN")]))
}

/// The login's outcome: 0 is success.
pub fn outcome(code: u8) -> Vec<u8> {
    frame(1, 0, &described(0x44, &[vec![0x50, code]]))
}

/// The broker's `open`, as a RabbitMQ.
pub fn open(max_frame_size: u32, channel_max: u16, idle_millis: u32) -> Vec<u8> {
    let properties =
        map(&[(symbol("product"), text("RabbitMQ")), (symbol("version"), text("4.0.5"))]);
    let fields = [
        text("scripted"),
        null(),
        uint(max_frame_size),
        ushort(channel_max),
        uint(idle_millis),
        null(),
        null(),
        null(),
        null(),
        properties,
    ];
    frame(0, 0, &described(0x10, &fields))
}

/// The login, without the `open` after it.
pub fn authenticated() -> Script {
    Script::new()
        .read(8)
        .send([SASL.to_vec(), mechanisms()].concat())
        .read_frame10() // init
        .send(outcome(0))
        .read(8)
        .send(AMQP.to_vec())
}

/// A whole login, with what is agreed on.
pub fn login(max_frame_size: u32, channel_max: u16, idle_millis: u32) -> Script {
    authenticated().read_frame10().send(open(max_frame_size, channel_max, idle_millis))
}
