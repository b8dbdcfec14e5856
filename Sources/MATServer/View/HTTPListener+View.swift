import MATControl
import MATRuntime
import MATSignal

extension HTTPListener {
    /// How often who looks on hears how things are.
    static let viewIntervalSeconds: Int64 = 2

    /// A page for people: who is where, what happens. It asks nobody who he is, so it is for loopback only; it changes nothing, and gets
    /// nothing from elsewhere.
    ///
    /// - Parameter report: how things are; `nil` when the daemon is ending.
    package static func view(of program: String, _ loop: EventLoop, _ report: @escaping () -> ViewReport?) -> HTTPListener {
        let page = page(loop) {
            let report = report()
            return { report.flatMap { try? ControlJSON.encode($0) }.map { String(decoding: $0, as: UTF8.self) } ?? "{}" }
        }
        return HTTPListener(
            title: "a page for people",
            HTTPSite(
                program: program, section: "view",
                resources: [
                    "/": .text(ViewPage.document, type: "text/html; charset=utf-8"),
                    "/view.css": .text(ViewStyle.sheet, type: "text/css; charset=utf-8"),
                    "/view.js": .text(ViewScript.program, type: "text/javascript; charset=utf-8"),
                    "/view.json": .page(type: "application/json", page),
                    "/events": .events(everySeconds: viewIntervalSeconds, page),
                ],
                headers: [
                    (
                        "Content-Security-Policy",
                        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'"
                    ),
                    ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
                ],
                wantsOwnName: true))
    }
}
