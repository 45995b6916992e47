//! The request that a line of the log is about.
//!
//! While a request is handled, its thread knows whose it is, and every line that is logged there and then is given the
//! request's API, version and correlation id, the client's id, its address and the number of its connection. That costs
//! a reference count and two writes for each poll; text is made only where a line is.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

/// Lines about finished requests, at the level debug; see [`log_done`].
pub const TARGET: &str = "ringlog::request";

/// Who sends requests.
pub trait Requester {
    /// Address and port.
    fn peer(&self) -> String;

    /// As the last request has it.
    fn client_id(&self) -> Option<Rc<str>>;

    /// Its number in the shard that serves it, with the shard's before it: `0-17`.
    fn connection(&self) -> String;
}

/// What a request calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestName {
    pub api: &'static str,
    pub version: i16,
    pub correlation_id: i32,
}

/// A request under way.
#[derive(Clone)]
pub struct Request {
    pub name: RequestName,
    pub by: Rc<dyn Requester>,
}

thread_local! {
    static CURRENT: Cell<Option<Request>> = const { Cell::new(None) };
}

/// Runs `future`; the lines that it logs are about `request`.
pub async fn about<F: Future>(request: Request, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut request = Some(request);
    poll_fn(|context| {
        CURRENT.set(request.take());
        let polled = future.as_mut().poll(context);
        request = CURRENT.take();
        polled
    })
    .await
}

/// The request that is being handled on this thread now.
pub fn current() -> Option<Request> {
    let current = CURRENT.take();
    CURRENT.set(current.clone());
    current
}

impl Request {
    /// Names and values as a line has them, numbers as numbers.
    pub fn fields(&self) -> [(&'static str, serde_json::Value); 6] {
        [
            ("api", self.name.api.into()),
            ("version", self.name.version.into()),
            ("correlation_id", self.name.correlation_id.into()),
            ("client_id", self.by.client_id().as_deref().into()),
            ("peer", self.by.peer().into()),
            ("connection", self.by.connection().into()),
        ]
    }
}

/// Whether [`log_done`] would say anything; next to nothing where it would not.
pub fn is_done_logged() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Logs a request whose last byte of answer is with the kernel, or that has none.
pub fn log_done(name: &RequestName, by: &dyn Requester, took_us: u64) {
    let RequestName { api, version, correlation_id } = *name;
    let client_id = by.client_id();
    let (client_id, peer, connection) = (client_id.as_deref(), by.peer(), by.connection());
    tracing::debug!(target: TARGET, api, version, correlation_id, client_id, peer, connection, took_us, "done");
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    struct Somebody;

    impl Requester for Somebody {
        fn peer(&self) -> String {
            "10.0.0.1:4000".to_owned()
        }

        fn client_id(&self) -> Option<Rc<str>> {
            None
        }

        fn connection(&self) -> String {
            "0-1".to_owned()
        }
    }

    fn request(correlation_id: i32) -> Request {
        Request { name: RequestName { api: "Fetch", version: 12, correlation_id }, by: Rc::new(Somebody) }
    }

    fn id() -> Option<i32> {
        current().map(|request| request.name.correlation_id)
    }

    #[test]
    fn a_line_is_about_the_request_whose_future_runs_and_about_none_between() {
        let suspended = |number| async move {
            let mut is_second = false;
            poll_fn(|_| if std::mem::replace(&mut is_second, true) { Poll::Ready(()) } else { Poll::Pending }).await;
            assert_eq!(id(), Some(number));
        };
        let (mut one, mut two) = (pin!(about(request(1), suspended(1))), pin!(about(request(2), suspended(2))));
        let mut context = Context::from_waker(Waker::noop());
        for expected in [Poll::Pending, Poll::Ready(())] {
            assert_eq!(one.as_mut().poll(&mut context), expected);
            assert_eq!(id(), None);
            assert_eq!(two.as_mut().poll(&mut context), expected);
        }
    }
}
