//! Tests across transports and brokers; there is nothing here but the tests.
