//! The embedded page: hand-written HTML, CSS and ES modules, served under a policy that allows
//! nothing but these files and our own API.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use url::form_urlencoded;

use super::Api;
use super::auth::{self, Caller};
use super::problem::Problem;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const INDEX: &str = include_str!("ui/index.html");
const MESSAGE: &str = include_str!("ui/message.html");
/// See [`super::approve`].
pub(super) const APPROVE: &str = include_str!("ui/approve.html");

/// Path, media type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/ui/style.css", "text/css; charset=utf-8", include_str!("ui/style.css")),
    ("/ui/icon.svg", "image/svg+xml", include_str!("ui/icon.svg")),
    ("/ui/app.js", "text/javascript; charset=utf-8", include_str!("ui/app.js")),
    ("/ui/api.js", "text/javascript; charset=utf-8", include_str!("ui/api.js")),
    ("/ui/dom.js", "text/javascript; charset=utf-8", include_str!("ui/dom.js")),
    ("/ui/format.js", "text/javascript; charset=utf-8", include_str!("ui/format.js")),
    ("/ui/bars.js", "text/javascript; charset=utf-8", include_str!("ui/bars.js")),
    ("/ui/drawer.js", "text/javascript; charset=utf-8", include_str!("ui/drawer.js")),
    ("/ui/marks.js", "text/javascript; charset=utf-8", include_str!("ui/marks.js")),
    ("/ui/results.js", "text/javascript; charset=utf-8", include_str!("ui/results.js")),
];

/// `/` and its files.
pub(super) fn routes() -> Router<Arc<Api>> {
    let mut routes = Router::new().route("/", get(index));
    for &(path, kind, content) in FILES {
        routes = routes.route(path, get(move || async move { file(kind, content) }));
    }
    routes
}

/// The page for who is signed in; everybody else is sent to sign in and comes back to the same search.
async fn index(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    caller: Result<Caller, Problem>,
) -> Response {
    if let Some(address) = auth::proper_address(&api, &headers, &uri) {
        return Redirect::to(address.as_str()).into_response();
    }
    match caller {
        Ok(_) => with_policy(Html(INDEX).into_response()),
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {
            let back = uri.path_and_query().map_or("/", |path| path.as_str());
            let query: String =
                form_urlencoded::Serializer::new(String::new()).append_pair("next", back).finish();
            Redirect::to(&format!("/auth/login?{query}")).into_response()
        }
        Err(problem) => message(problem.status(), "Not now", problem.detail()),
    }
}

/// A small page that says one thing.
pub(super) fn message(status: StatusCode, title: &str, text: &str) -> Response {
    let html = MESSAGE.replace("{title}", &escaped(title)).replace("{text}", &escaped(text));
    with_policy((status, Html(html)).into_response())
}

fn file(kind: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], content).into_response()
}

pub(super) fn with_policy(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static(POLICY));
    response
}

pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            // A replaced placeholder must not bring another.
            '{' => html.push_str("&#123;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text_in_a_message() {
        assert_eq!(escaped("<script>'\"&{text}"), "&lt;script&gt;&#39;&quot;&amp;&#123;text}");
    }

    #[test]
    fn the_page_needs_nothing_that_the_policy_forbids() {
        let pages = [("/", "", INDEX), ("message", "", MESSAGE), ("approve", "", APPROVE)];
        for (path, _, content) in FILES.iter().chain(&pages) {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
                " onclick=",
                "https://",
                "<script>",
            ] {
                assert!(!content.contains(forbidden), "{path} holds {forbidden}");
            }
        }
    }
}
