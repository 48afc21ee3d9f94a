//! Frames as a broker writes them, for tests.

use lapin::protocol::constants::FRAME_END;

use super::{
    frame::{BODY, HEADER, METHOD},
    methods::{BASIC_DELIVER, BASIC_RETURN, CONNECTION_START, Method},
};

pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(FRAME_END);
    frame
}

pub(crate) fn method(channel: u16, (class, method): Method, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(METHOD, channel, &payload)
}

pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A `connection.start` without properties.
pub(crate) fn start() -> Vec<u8> {
    method(0, CONNECTION_START, b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US")
}

/// Consumer tag, delivery tag, redelivered, exchange, routing key.
pub(crate) fn deliver(channel: u16, key: &[u8]) -> Vec<u8> {
    let arguments = [&b"\x03tag\0\0\0\0\0\0\0\x07\0\x04shop"[..], &short(key)].concat();
    method(channel, BASIC_DELIVER, &arguments)
}

pub(crate) fn returned(channel: u16, key: &[u8]) -> Vec<u8> {
    let arguments = [&b"\x01\x38\x08NO_ROUTE\x04shop"[..], &short(key)].concat();
    method(channel, BASIC_RETURN, &arguments)
}

/// `basic.ack` or `basic.nack` of a published message.
pub(crate) fn answer(channel: u16, of: Method, number: u64, bits: u8) -> Vec<u8> {
    method(channel, of, &[&number.to_be_bytes()[..], &[bits]].concat())
}

pub(crate) fn header(channel: u16, body: u64, flags: u16, properties: &[u8]) -> Vec<u8> {
    let payload =
        [&[0, 60, 0, 0][..], &body.to_be_bytes(), &flags.to_be_bytes(), properties].concat();
    frame(HEADER, channel, &payload)
}

/// The header of a message with no property but its delivery mode.
pub(crate) fn plain(channel: u16, body: u64) -> Vec<u8> {
    header(channel, body, 0x1000, &[2])
}

pub(crate) fn body(channel: u16, bytes: &[u8]) -> Vec<u8> {
    frame(BODY, channel, bytes)
}

/// So many tables, each in the one before.
pub(crate) fn nested(levels: usize) -> Vec<u8> {
    (1..levels).fold(long(&[]), |inner, _| long(&[&b"\0F"[..], &inner].concat()))
}
