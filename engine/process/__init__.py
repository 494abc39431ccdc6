"""What a process is to a library in it: its cores, its children, its locale, its interrupts."""
