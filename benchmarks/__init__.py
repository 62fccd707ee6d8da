"""How fast this project is, against its peers and against the machine; `make bench` runs it all."""
