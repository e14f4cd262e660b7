//! The pages: plain HTML, no script, nothing from elsewhere.

use std::fmt::Write as _;

use super::Person;

/// The style sheet of all pages.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem}\
h1{font-size:1.4rem}\
code{font-size:1.6rem;letter-spacing:.1em}\
form{margin:1rem 0}\
button,input{font:inherit;padding:.5rem .9rem;margin:.2rem .2rem .2rem 0}\
button{display:block;width:100%;text-align:left;cursor:pointer}\
small{opacity:.75}\
";

/// Asks for the code.
pub(super) fn ask_code(note: &str) -> String {
    page(
        "Log in with a code",
        &format!(
            "<p>{}</p><form method=get action=/device><label>Code shown by your client<br>\
             <input name=user_code autofocus autocomplete=off maxlength=16 placeholder=XXXX-XXXX></label>\
             <button>Continue</button></form>",
            escape(note)
        ),
    )
}

/// Asks who approves the code.
pub(super) fn ask_approval(user_code: &str, people: &[Person]) -> String {
    let code = escape(user_code);
    let mut body = format!(
        "<p>The client <b>pgwitness</b> asks to open a database connection in your name. Its code:</p>\
         <p><code>{code}</code></p>\
         <p>Approve only if your own client shows this code.</p>\
         <form method=post action=/device><input type=hidden name=user_code value=\"{code}\">"
    );
    people_buttons(&mut body, people, "Approve as");
    body.push_str("<button name=deny value=yes>Deny</button></form>");
    page("Approve a login?", &body)
}

/// Asks who logs in to the page.
pub(super) fn ask_person(query: &[(String, String)], people: &[Person]) -> String {
    let mut body = String::from(
        "<p>The client <b>pgwitness</b> asks who you are.</p><form method=post action=/authorize>",
    );
    for (name, value) in query {
        // Writing to a String cannot fail.
        let _ = write!(body, "<input type=hidden name=\"{}\" value=\"{}\">", escape(name), escape(value));
    }
    people_buttons(&mut body, people, "Sign in as");
    body.push_str("<button name=deny value=yes>Cancel</button></form>");
    page("Sign in", &body)
}

/// Says how it went.
pub(super) fn message(title: &str, text: &str) -> String {
    page(title, &format!("<p>{}</p>", escape(text)))
}

fn people_buttons(body: &mut String, people: &[Person], verb: &str) {
    for person in people {
        let _ = write!(
            body,
            "<button name=user value=\"{email}\">{verb} <b>{name}</b> <small>{email} · {groups}</small></button>",
            email = escape(&person.email),
            name = escape(&person.name),
            groups = escape(&person.groups.join(", ")),
        );
    }
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title} · pgwitness demo</title><link rel=stylesheet href=/style.css>\
         <h1>{title}</h1>{body}<p><small>This is the demo's identity provider: it asks for no password.</small></p></html>",
        title = escape(title)
    )
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}
