//! What a broker of AMQP 0-9-1 says.

use super::Script;

/// A frame of any type.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}

/// A method frame.
pub fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut payload = Vec::from(class.to_be_bytes());
    payload.extend(method.to_be_bytes());
    payload.extend(arguments);
    frame(1, channel, &payload)
}

/// A short string.
pub fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

/// A long string, or a table whose entries are written already.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    let mut long = Vec::from((bytes.len() as u32).to_be_bytes());
    long.extend(bytes);
    long
}

/// One entry of a table, a text.
pub fn text_entry(name: &str, text: &str) -> Vec<u8> {
    [short(name), vec![b'S'], long(text.as_bytes())].concat()
}

/// `connection.start` of a RabbitMQ.
pub fn start() -> Vec<u8> {
    start_with(&[text_entry("product", "RabbitMQ"), text_entry("version", "4.0.5")].concat())
}

/// `connection.start` with these server properties.
pub fn start_with(properties: &[u8]) -> Vec<u8> {
    let arguments = [vec![0, 9], long(properties), long(b"PLAIN AMQPLAIN"), long(b"en_US")];
    method(0, 10, 10, &arguments.concat())
}

/// `connection.tune`.
pub fn tune(channel_max: u16, frame_max: u32, heartbeat: u16) -> Vec<u8> {
    let arguments = [
        channel_max.to_be_bytes().to_vec(),
        frame_max.to_be_bytes().to_vec(),
        heartbeat.to_be_bytes().to_vec(),
    ];
    method(0, 10, 30, &arguments.concat())
}

/// `connection.open-ok`.
pub fn open_ok() -> Vec<u8> {
    method(0, 10, 41, &short(""))
}

/// `connection.close`.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    method(0, 10, 50, &[code.to_be_bytes().to_vec(), short(reason), vec![0; 4]].concat())
}

/// `channel.open-ok`.
pub fn channel_open_ok(channel: u16) -> Vec<u8> {
    method(channel, 20, 11, &long(b""))
}

/// A whole login, with what is agreed on.
pub fn login(channel_max: u16, frame_max: u32, heartbeat: u16) -> Script {
    Script::new()
        .read(8)
        .send(start())
        .read_frame()
        .send(tune(channel_max, frame_max, heartbeat))
        .read_frame() // tune-ok
        .read_frame() // open
        .send(open_ok())
}
