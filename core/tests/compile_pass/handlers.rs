//! Handlers of every shape, plain and configured, on services with and without a state.

use enoki_core::{
    Attempt, Body, Broker, Codecs, Context, Delivery, Envelope, Failure, Handler, Json, OnError,
    Outcome, Raw, Service, State, WorkQueue,
};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");
const UPLOADS: WorkQueue<Raw> = WorkQueue::new("uploads");

#[derive(Clone)]
struct Rates;

async fn nothing() {}
async fn body(Body(_): Body<String>) {}
async fn raw(Body(_): Body<Raw>) -> Outcome {
    Outcome::Ack
}
async fn failure(Body(_): Body<String>) -> Result<(), Failure> {
    Ok("7".parse::<u8>().map(drop)?)
}
async fn error(Body(_): Body<String>) -> Result<Outcome, std::fmt::Error> {
    Ok(Outcome::Reject)
}
async fn state(State(_): State<Rates>, Body(_): Body<String>) {}
async fn all(_: State<Rates>, _: Body<String>, _: Attempt, _: Context, _: Envelope, _: Delivery) {}

fn stateless(broker: Broker) -> Service {
    Service::new("plain", broker)
        .consume(&ORDERS, nothing)
        .consume(&ORDERS, nothing.concurrency(4))
        .consume(&ORDERS, body.concurrency(4).prefetch(16))
        .consume(&ORDERS, failure.on_error(OnError::reject()).named("other"))
        .consume(&ORDERS, error.accept(Codecs::only(Json)))
        .consume(&UPLOADS, raw.prefetch(16))
        .consume(&ORDERS, |Body(order): Body<String>| async move { drop(order) })
}

fn stateful(broker: Broker) -> Service<Rates> {
    Service::new("rated", broker)
        .state(Rates)
        .consume(&ORDERS, body.concurrency(4))
        .consume(&ORDERS, state.concurrency(4))
        .consume(&ORDERS, all.concurrency(4))
        .consume(&UPLOADS, nothing.concurrency(4))
}

fn main() {
    let _ = (stateless, stateful);
}
