"""Docker's remote drivers, as libnetwork defines them: natgw as a network driver and as an address (IPAM) driver.

    messages    what Docker sends and wants back, decoded and encoded; pure
    network     NetworkDriver.*: networks and endpoints of Docker's, kept as natgw's own are
    addresses   IpamDriver.*: pools and addresses, for `docker network create --ipam-driver`
    naming      the names that go with Docker's ids, asked of Docker's API while no request is being answered

Docker makes one request at a time for an endpoint and waits for the answer, holding locks meanwhile. So no request is
answered by asking Docker something (that could wait for the request itself), and whatever has been done already, or undone,
is answered as done: Docker asks again after it or natgw was killed half-way.
"""
