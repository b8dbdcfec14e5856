/// Kinds of sockets, as linux/net.h numbers them. Glibc's own names are not in sight where the module is compiled as a whole.
enum SocketType {
    static let stream: Int32 = 1
    static let datagram: Int32 = 2
    static let raw: Int32 = 3
    static let closedByExec: Int32 = 0o2000000
}
